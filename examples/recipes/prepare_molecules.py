"""
Prepare molecules for pre-training a graph method: clean, leave out benchmark molecules, hold some out.

    python examples/recipes/prepare_molecules.py ../shared/data/pretrain/zinc250k.parquet \
        ../shared/data/pretrain/chembl_validation.parquet \
        --exclude ../shared/data/moleculenet/benchmark_blocks.parquet --out molecules

Reads the columns `smiles` and `inchikey_block` (first block of the InChIKey) of every file and writes `train.parquet`
and `validation.parquet` (columns smiles, inchikey_block, source, row_id) and `exclusions.json` with the counts of what
was left out and why. Which part a molecule belongs to depends on its InChIKey first block alone.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from hf_molrep.chem.smiles import MoleculeError, canonical_smiles_batch
from hf_molrep.data.splits import block_fraction


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="Parquet with smiles and inchikey_block")
    parser.add_argument("--exclude", type=Path, help="Parquet with inchikey_block: molecules to leave out")
    parser.add_argument("--out", type=Path, default=Path("molecules"))
    parser.add_argument("--validation-fraction", type=float, default=0.02)
    parser.add_argument("--train-molecules", type=int, help="draw so many of the training part, with seed 0")
    arguments = parser.parse_args(argv)

    tables = []
    for file in arguments.files:
        table = pd.read_parquet(file)
        if missing := {"smiles", "inchikey_block"} - set(table.columns):
            parser.error(f"{file} has no column {' and '.join(sorted(missing))}")
        tables.append(table[["smiles", "inchikey_block"]].assign(source=file.stem))
    molecules = pd.concat(tables, ignore_index=True)
    counts = {"rows": len(molecules)} | {
        file.stem: len(table) for file, table in zip(arguments.files, tables, strict=True)
    }

    def keep(mask: pd.Series, reason: str) -> None:
        nonlocal molecules
        counts[f"left out: {reason}"] = int((~mask).sum())
        molecules = molecules[mask]

    if arguments.exclude:
        blocks = set(pd.read_parquet(arguments.exclude).inchikey_block)
        keep(~molecules.inchikey_block.isin(blocks), "benchmark molecule (InChIKey first block)")
    smiles: list = []
    for start in tqdm(range(0, len(molecules), 5000), desc="canonicalising", unit_scale=5000):
        smiles += canonical_smiles_batch(molecules.smiles.iloc[start : start + 5000].tolist(), "clean", on_error="skip")
    molecules = molecules.assign(smiles=smiles)
    keep(~molecules.smiles.map(lambda value: isinstance(value, MoleculeError)), "SMILES refused")
    keep(~molecules.duplicated("smiles"), "same SMILES after standardisation")
    molecules["row_id"] = range(len(molecules))

    held_out = molecules.inchikey_block.map(block_fraction) < arguments.validation_fraction
    arguments.out.mkdir(parents=True, exist_ok=True)
    train = molecules[~held_out]
    if arguments.train_molecules is not None and arguments.train_molecules < len(train):
        counts["left out: not drawn for training"] = len(train) - arguments.train_molecules
        train = train.sample(arguments.train_molecules, random_state=0).sort_index()
    for name, part in (("train", train), ("validation", molecules[held_out])):
        counts[name] = len(part)
        part.to_parquet(arguments.out / f"{name}.parquet", index=False)
    (arguments.out / "exclusions.json").write_text(json.dumps(counts, indent=2) + "\n")
    print(f"{json.dumps(counts, indent=2)}\nwritten to {arguments.out}/")


if __name__ == "__main__":
    main()
