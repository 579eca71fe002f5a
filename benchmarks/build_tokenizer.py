"""Rebuild a tokenizer of `tokenizers/`: `python -m benchmarks.build_tokenizer NAME --out tokenizers/NAME`."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import tokenizer_corpus as corpus
from benchmarks.harness.data import data_folder
from hf_molrep.tokenization.fast import as_fast_tokenizer, sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SELFIES_STEP = 10
"""Writing SELFIES is slow: of the unlabelled molecules, whose symbols are the common ones, every tenth is enough."""


def _smiles_bpe(data: Path) -> PreTrainedTokenizerFast:
    from hf_molrep.tokenization.smiles_bpe import IUPAC_CORPUS_WEIGHT, build_smiles_bpe

    weights = Counter(corpus.unlabelled_smiles(data))
    for smiles in dict.fromkeys(smiles for smiles, _ in corpus.pairs(data)):
        weights[smiles] += IUPAC_CORPUS_WEIGHT
    return as_fast_tokenizer(build_smiles_bpe(weights))


def _iupac(data: None) -> PreTrainedTokenizerFast:
    from hf_molrep.tokenization.iupac import build_iupac

    return as_fast_tokenizer(build_iupac())


def _smiles_atom(data: Path) -> PreTrainedTokenizerFast:
    from hf_molrep.tokenization.smiles_atom import build_smiles_atom

    molecules = {smiles for smiles, _ in corpus.pairs(data)}.union(corpus.unlabelled_smiles(data))
    return as_fast_tokenizer(build_smiles_atom(molecules))


def _selfies(data: Path) -> PreTrainedTokenizerFast:
    from hf_molrep.tokenization.selfies import build_selfies, encode, version

    molecules = dict.fromkeys(smiles for smiles, _ in corpus.pairs(data))
    molecules.update(dict.fromkeys(islice(corpus.unlabelled_smiles(data), 0, None, SELFIES_STEP)))
    strings = (string for string in map(encode, molecules) if string is not None)
    return as_fast_tokenizer(build_selfies(strings), selfies_version=version())


def _inchi(data: None) -> PreTrainedTokenizerFast:
    from hf_molrep.tokenization.inchi import build_inchi

    return as_fast_tokenizer(build_inchi())


BUILDERS: dict[str, Callable[[Path | None], PreTrainedTokenizerFast]] = {
    "smiles_bpe": _smiles_bpe,
    "iupac": _iupac,
    "smiles_atom": _smiles_atom,
    "selfies": _selfies,
    "inchi": _inchi,
}
RULES_ALONE = ("iupac", "inchi")
"""These come from rules and read no data."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.build_tokenizer", description=__doc__)
    parser.add_argument("name", choices=BUILDERS)
    parser.add_argument("--data", type=Path, help="with iupac/, pretrain/, moleculenet/ (default: the data folder)")
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer.json and tokenizer_config.json")
    options = parser.parse_args(arguments)
    data = None if options.name in RULES_ALONE else options.data or data_folder()
    tokenizer = BUILDERS[options.name](data)
    tokenizer.save_pretrained(options.out)
    print(f"{options.name}: {len(tokenizer)} tokens, sha256 {sha256(options.out / 'tokenizer.json')}, in {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
