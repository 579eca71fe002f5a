"""Table of the tokenizers, measured on the 2 % of the data that are held out from all of them.

    python -m benchmarks.tokenizer_table

prints the table and writes it to `benchmarks/results/tokenizers.md`, with notes on what is measured.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

from benchmarks import tokenizer_corpus as corpus
from benchmarks.harness.data import data_folder
from benchmarks.harness.report import RESULTS, ROOT
from benchmarks.harness.timing import timed

os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")

CAPTION = """\
- *tokens*: mean per molecule, without `<s>` and `</s>`; *> 512*: share of molecules that a model of 512 positions cuts.
- *fallback*: share of molecules with a part for which the tokenizer has no token of its own and that it spells in
  smaller pieces (a rare bracket atom; a character of a name that no rule covers).
- *unknown*: share of tokens that are `<unk>`; *round trip*: share of molecules that decoding gives back exactly.
- *molecules/s*: per CPU second, one thread, batched call through transformers, best of three fresh loads.
- Strings: RDKit canonical SMILES, names as the sources give them, standard InChI by RDKit, SELFIES by `selfies`
  {selfies}. Molecules without a string in a notation are left out of its row (column *molecules*).
"""


def inchi(smiles: str) -> str | None:
    """Return the standard InChI, or None if RDKit cannot make one."""
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")
    mol = Chem.MolFromSmiles(smiles)
    return (mol and Chem.MolToInchi(mol, options="-LogLevel=0")) or None


def uses_fallback(name: str, tokenizer, string: str) -> bool:
    """Return whether a symbol of `string` has no token of its own."""
    from hf_molrep.tokenization.iupac import leftover
    from hf_molrep.tokenization.smiles_bpe import symbols

    if name == "iupac":
        return bool(leftover(string))
    if name == "smiles_bpe":
        parts = symbols(string)
    else:
        parts = [part for part, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(string)]
    vocabulary = tokenizer.get_vocab()
    return any(part not in vocabulary for part in parts)


def cpu_seconds(folder: Path, strings: list[str], repeats: int = 3) -> float:
    """Return the lowest CPU time of `repeats` batched calls, each with a newly loaded tokenizer (they have caches)."""
    from transformers import AutoTokenizer

    tokenizers = (AutoTokenizer.from_pretrained(folder) for _ in range(repeats))
    return min(timed(partial(tokenizer, strings))[1].cpu for tokenizer in tokenizers)


def row(name: str, strings: list[str]) -> str:
    """Make a row of the table."""
    from transformers import AutoTokenizer

    folder = ROOT / "tokenizers" / name
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(strings)["input_ids"]
    lengths = [len(sequence) - 2 for sequence in ids]
    tokens = sum(lengths)
    unknown = sum(sequence.count(tokenizer.unk_token_id) for sequence in ids)
    decoded = tokenizer.batch_decode(ids, skip_special_tokens=True)
    same = sum(text == string for text, string in zip(decoded, strings, strict=True))
    fallback = sum(uses_fallback(name, tokenizer, string) for string in strings)
    count = len(strings)
    cut = sum(length > tokenizer.model_max_length - 2 for length in lengths)
    cells = [
        f"`{name}`",
        f"{len(tokenizer):,}",
        f"{count:,}",
        f"{sum(map(len, strings)) / count:.1f}",
        f"{tokens / count:.1f}",
        f"{cut / count:.2%}",
        f"{fallback / count:.2%}",
        f"{unknown / tokens:.3%}",
        f"{same / count:.2%}",
        f"{count / cpu_seconds(folder, strings):,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def table(title: str, notations: dict[str, list[str]]) -> str:
    """Make a section: one row for each tokenizer and its strings."""
    head = (
        "| tokenizer | vocabulary | molecules | characters | tokens | > 512 | fallback | unknown | round trip "
        "| molecules/s |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    return "\n".join([f"## {title}\n", head, *(row(name, strings) for name, strings in notations.items()), ""])


def notations_of(smiles: list[str]) -> dict[str, list[str]]:
    """Write the molecules in the notation of each tokenizer except `iupac`."""
    from hf_molrep.tokenization.selfies import encode

    return {
        "smiles_bpe": smiles,
        "smiles_atom": smiles,
        "selfies": [string for string in map(encode, smiles) if string],
        "inchi": [string for string in map(inchi, smiles) if string],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="default: the data folder")
    parser.add_argument("--out", type=Path, default=RESULTS / "tokenizers.md")
    options = parser.parse_args()

    from transformers.utils import logging

    logging.set_verbosity_error()  # "sequence length is longer than ...": the table has a column for it
    from hf_molrep.tokenization import selfies

    data = options.data or data_folder()
    pairs = list(corpus.pairs(data, held_out=True))
    named = list(dict.fromkeys(smiles for smiles, _ in pairs))
    names = list(dict.fromkeys(name for _, name in pairs))
    unlabelled = list(dict.fromkeys(corpus.unlabelled_smiles(data, held_out=True)))
    text = "\n".join(
        [
            "# Tokenizers on the held-out 2 %\n",
            "Made by `python -m benchmarks.tokenizer_table`.\n",
            CAPTION.format(selfies=selfies.version()),
            table("Molecules of the name corpus", {**notations_of(named), "iupac": names}),
            table("Molecules of ChEMBL, GEOM-Drugs and ZINC", notations_of(unlabelled)),
        ]
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text, encoding="utf-8")
    print(text)
    print(f"written to {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
