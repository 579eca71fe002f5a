r"""
Prepare molecules for pre-training a graph method: clean, leave out benchmark molecules, hold some out.

    python examples/recipes/prepare_molecules.py ../shared/data/pretrain/zinc250k.parquet \
        ../shared/data/pretrain/chembl_validation.parquet \
        --exclude ../shared/data/moleculenet/benchmark_blocks.parquet --out molecules

Reads the columns `smiles` and `inchikey_block` (first block of the InChIKey) of every file and writes `train.parquet`
and `validation.parquet` (columns smiles, inchikey_block, source, row_id) and `exclusions.json` with the counts of what
was left out and why. Which part a molecule belongs to depends on its InChIKey first block alone. Molecules to leave out
are given by their first blocks, or, in a file without that column, by their SMILES. `--condition qed` adds the column
condition with the QED of each molecule, for a model that writes molecules with a wished QED:

    hf-molrep pretrain x_mol --model x-mol-mini --train_data molecules/train.parquet --empty_source 1 \
        --output_dir my-generator
    hf-molrep generate new.csv --model my-generator --condition 0.9 -n 1000
"""

import argparse
import json
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from hf_molrep.chem.properties import PROPERTIES, properties
from hf_molrep.chem.smiles import MoleculeError, canonical_smiles_batch, inchikey_block
from hf_molrep.data.splits import block_fraction


def blocks_of(file: Path) -> set[str]:
    """Return the InChIKey first blocks of the molecules in a Parquet file."""
    table = pd.read_parquet(file)
    return set(table.inchikey_block if "inchikey_block" in table else table.smiles.map(inchikey_block))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="Parquet with smiles and inchikey_block")
    parser.add_argument(
        "--exclude", type=Path, nargs="+", default=[], help="Parquet with inchikey_block or smiles: to be left out"
    )
    parser.add_argument("--exclude-source", nargs="+", default=[], help="values of the column source to be left out")
    parser.add_argument("--out", type=Path, default=Path("molecules"))
    parser.add_argument("--validation-fraction", type=float, default=0.02)
    parser.add_argument("--draw", type=int, help="draw so many of the molecules that are not left out, with seed 0")
    parser.add_argument("--condition", choices=tuple(PROPERTIES), help="property that becomes the column condition")
    parser.add_argument("--train-molecules", type=int, help="draw so many of the training part, with seed 0")
    arguments = parser.parse_args(argv)

    tables = []
    for file in arguments.files:
        table = pd.read_parquet(file)
        if missing := {"smiles", "inchikey_block"} - set(table.columns):
            parser.error(f"{file} has no column {' and '.join(sorted(missing))}")
        source = table.get("source", pd.Series(file.stem, table.index))
        tables.append(table[["smiles", "inchikey_block"]].assign(source=source))
    molecules = pd.concat(tables, ignore_index=True)
    counts = {"rows": len(molecules)} | {
        file.stem: len(table) for file, table in zip(arguments.files, tables, strict=True)
    }

    def keep(mask: pd.Series, reason: str) -> None:
        nonlocal molecules
        counts[f"left out: {reason}"] = int((~mask).sum())
        molecules = molecules[mask]

    for source in arguments.exclude_source:
        keep(molecules.source != source, f"source {source}")
    for number, file in enumerate(arguments.exclude):
        what = "benchmark molecule" if not number else f"molecule of {file.stem}"
        keep(~molecules.inchikey_block.isin(blocks_of(file)), f"{what} (InChIKey first block)")
    if arguments.draw is not None and arguments.draw < len(molecules):
        counts["left out: not drawn"] = len(molecules) - arguments.draw
        molecules = molecules.sample(arguments.draw, random_state=0).sort_index()
    smiles: list = []
    for start in tqdm(range(0, len(molecules), 5000), desc="canonicalising", unit_scale=5000):
        smiles += canonical_smiles_batch(molecules.smiles.iloc[start : start + 5000].tolist(), "clean", on_error="skip")
    molecules = molecules.assign(smiles=smiles)
    keep(~molecules.smiles.map(lambda value: isinstance(value, MoleculeError)), "SMILES refused")
    keep(~molecules.duplicated("smiles"), "same SMILES after standardisation")
    molecules["row_id"] = range(len(molecules))

    if arguments.condition:
        molecules["condition"] = properties(tqdm(molecules.smiles, desc=arguments.condition), arguments.condition)

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
