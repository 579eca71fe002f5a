"""
Prepare conformers for pre-training a 3D method, given or computed from SMILES, without benchmark molecules.

    python -m benchmarks.qm9 --write-pretraining qm9_pretraining
    python examples/recipes/prepare_conformers.py --geometries qm9_pretraining/molecules.parquet \
        --smiles ../shared/data/pretrain/zinc250k.parquet --molecules 12000 \
        --exclude ../shared/data/moleculenet/benchmark_blocks.parquet qm9_pretraining/held_out.parquet --out conformers

`--geometries` are Parquet files with smiles, inchikey_block, atomic_numbers (a list per molecule) and coordinates
(angstrom, a flat list). `--smiles` files have smiles and inchikey_block; `--molecules` of each, drawn by `--seed`, get
`--conformers` computed conformers (ETKDGv3, MMFF94), which are cached on disk, so that a stopped run continues.
Writes `train.parquet` and `validation.parquet` (smiles, inchikey_block, atomic_numbers, coordinates of all conformers,
source, row_id) and `exclusions.json` with the counts of what was left out and why. Which part a molecule belongs to
depends on its InChIKey first block alone.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

from hf_molrep.chem.conformers import count_reports, generate_conformers
from hf_molrep.chem.smiles import MoleculeError, canonical_smiles_batch
from hf_molrep.data.splits import block_fraction

COLUMNS = ["smiles", "inchikey_block", "atomic_numbers", "coordinates"]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometries", type=Path, nargs="+", default=[], help="Parquet files with coordinates")
    parser.add_argument(
        "--smiles", type=Path, nargs="+", default=[], help="Parquet files whose conformers are computed"
    )
    parser.add_argument("--molecules", type=int, help="molecules of each of these files (default: all)")
    parser.add_argument("--conformers", type=int, default=1, help="conformers of each of these molecules")
    parser.add_argument("--exclude", type=Path, nargs="+", default=[], help="Parquet with inchikey_block to leave out")
    parser.add_argument("--out", type=Path, default=Path("conformers"))
    parser.add_argument("--validation-fraction", type=float, default=0.02)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    if not arguments.geometries and not arguments.smiles:
        parser.error("give --geometries or --smiles")
    excluded: set[str] = set()
    for file in arguments.exclude:
        excluded |= set(pd.read_parquet(file, columns=["inchikey_block"]).inchikey_block)
    counts: dict[str, int] = {}
    tables = []

    def read(file: Path, columns: list[str]) -> pd.DataFrame:
        table = pd.read_parquet(file)
        if missing := set(columns) - set(table.columns):
            parser.error(f"{file} has no column {' and '.join(sorted(missing))}")
        counts[f"{file.stem}: rows"] = len(table)
        kept = table[columns][~table.inchikey_block.isin(excluded)]
        counts[f"{file.stem}: left out: benchmark molecule (InChIKey first block)"] = len(table) - len(kept)
        return kept.assign(source=file.stem)

    for file in arguments.geometries:
        tables.append(read(file, COLUMNS))
    for file in arguments.smiles:
        table = read(file, COLUMNS[:2])
        if arguments.molecules is not None and arguments.molecules < len(table):
            # by a hash of each molecule, so that a draw does not depend on the other molecules of the file
            drawn = table.inchikey_block.map(lambda block: block_fraction(f"{arguments.seed}:{block}"))
            table = table.loc[drawn.sort_values(kind="stable").index[: arguments.molecules]]
        smiles = canonical_smiles_batch(table.smiles.tolist(), "clean", on_error="skip")
        readable = [not isinstance(text, MoleculeError) for text in smiles]
        table = table[readable].assign(smiles=[text for text in smiles if isinstance(text, str)])
        found = generate_conformers(
            table.smiles.tolist(),
            num_conformers=arguments.conformers,
            processes=arguments.processes,
            on_error="skip",
        )
        done = np.array([not isinstance(result, MoleculeError) for result in found])
        counts[f"{file.stem}: drawn"] = len(readable)
        counts[f"{file.stem}: left out: SMILES refused or no conformer found"] = len(readable) - int(done.sum())
        counts |= {f"{file.stem}: {report}": count for report, count in count_reports(found).items()}
        results = [result for result, kept in zip(found, done, strict=True) if kept]
        table = table[done].assign(
            atomic_numbers=[result.z for result in results],
            coordinates=[result.pos.astype(np.float32).ravel() for result in results],
        )
        tables.append(table)
    molecules = pd.concat(tables, ignore_index=True)
    molecules["row_id"] = range(len(molecules))

    held_out = molecules.inchikey_block.map(block_fraction) < arguments.validation_fraction
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", molecules[~held_out]), ("validation", molecules[held_out])):
        counts[name] = len(part)
        part.to_parquet(arguments.out / f"{name}.parquet", index=False)
    (arguments.out / "exclusions.json").write_text(json.dumps(counts, indent=2) + "\n")
    print(f"{json.dumps(counts, indent=2)}\nwritten to {arguments.out}/")


if __name__ == "__main__":
    main()
