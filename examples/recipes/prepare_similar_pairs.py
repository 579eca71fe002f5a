"""
Prepare pairs of similar molecules of which the second has the better property, to fine-tune a model that writes SMILES.

    python examples/recipes/prepare_similar_pairs.py ../shared/data/pretrain/zinc250k.parquet --property qed \\
        --exclude ../shared/data/optimization/graph2graph_eval.parquet --out pairs
    hf-molrep pretrain x_mol --model my-x-mol --train_data pairs/train.parquet --num_train_epochs 5 \\
        --learning_rate 3e-4 --output_dir my-optimizer

Reads the column `smiles` of Parquet files and writes `train.parquet` and `validation.parquet` (columns smiles,
target_smiles, similarity, gain, row_id) and `exclusions.json` with counts. Which part a pair belongs to depends on the
InChIKey first block of its first molecule alone.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from hf_molrep.chem.properties import PROPERTIES, properties
from hf_molrep.chem.smiles import MoleculeError, canonical_smiles_batch, inchikey_block
from hf_molrep.data.similar_pairs import similar_pairs
from hf_molrep.data.splits import block_fraction


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="Parquet with smiles")
    parser.add_argument("--exclude", type=Path, nargs="+", default=[], help="Parquet with smiles: to be left out")
    parser.add_argument("--property", choices=tuple(PROPERTIES), default="qed")
    parser.add_argument("--minimize", action="store_true", help="smaller is better")
    parser.add_argument("--min-similarity", type=float, default=0.4)
    parser.add_argument("--min-gain", type=float, default=0.1)
    parser.add_argument("--draw", type=int, help="draw so many molecules, with seed 0")
    parser.add_argument("--out", type=Path, default=Path("pairs"))
    parser.add_argument("--validation-fraction", type=float, default=0.02)
    arguments = parser.parse_args(argv)

    molecules = pd.concat([pd.read_parquet(file)[["smiles"]] for file in arguments.files], ignore_index=True)
    counts = {"rows": len(molecules)}
    if arguments.draw is not None and arguments.draw < len(molecules):
        molecules = molecules.sample(arguments.draw, random_state=0).sort_index()
    texts = canonical_smiles_batch(molecules.smiles.tolist(), "clean", on_error="skip")
    smiles = list(dict.fromkeys(text for text in texts if not isinstance(text, MoleculeError)))
    counts["molecules"] = len(smiles)
    excluded = {inchikey_block(text) for file in arguments.exclude for text in pd.read_parquet(file).smiles}
    block_of = {text: inchikey_block(text) for text in smiles}
    smiles = [text for text in smiles if block_of[text] not in excluded]
    counts["left out: molecule to be evaluated (InChIKey first block)"] = counts["molecules"] - len(smiles)
    values = properties(smiles, arguments.property) * (-1 if arguments.minimize else 1)
    pairs = similar_pairs(smiles, values, (arguments.min_similarity, 0.999), arguments.min_gain)
    table = pd.DataFrame(
        {
            "smiles": [smiles[pair.source] for pair in pairs],
            "target_smiles": [smiles[pair.target] for pair in pairs],
            "similarity": [pair.similarity for pair in pairs],
            "gain": [pair.gain for pair in pairs],
            "row_id": range(len(pairs)),
        }
    )
    held_out = pd.Series(
        [block_fraction(block_of[smiles[pair.source]]) < arguments.validation_fraction for pair in pairs], dtype=bool
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", table[~held_out]), ("validation", table[held_out])):
        counts[name] = len(part)
        part.to_parquet(arguments.out / f"{name}.parquet", index=False)
    (arguments.out / "exclusions.json").write_text(json.dumps(counts, indent=2) + "\n")
    print(f"{json.dumps(counts, indent=2)}\nwritten to {arguments.out}/")


if __name__ == "__main__":
    main()
