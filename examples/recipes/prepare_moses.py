"""
Draw training molecules of MOSES for distribution learning.

    python examples/recipes/prepare_moses.py ../shared/data/generation/moses_train.parquet --draw 200000 --out moses

Leaves out the rows with a flag (`in_moleculenet`, `in_moleculeace`: molecules of benchmarks), draws with seed 0 and
writes `train.parquet` and `validation.parquet` (columns smiles, row_id) and `exclusions.json` with the counts. The
SMILES stay as they are: MOSES has no charges, and standardising would write its sulfoxides with charges.
"""

import argparse
import json
from pathlib import Path

import pandas as pd


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="Parquet with smiles and flags")
    parser.add_argument("--draw", type=int, help="draw so many molecules for training; default all")
    parser.add_argument("--validation", type=int, default=2000, help="and so many others for validation")
    parser.add_argument("--out", type=Path, default=Path("moses"))
    arguments = parser.parse_args(argv)
    molecules = pd.read_parquet(arguments.file)
    counts = {"rows": len(molecules)}
    for flag in ("in_moleculenet", "in_moleculeace"):
        counts[f"left out: {flag}"] = int(molecules[flag].sum())
        molecules = molecules[~molecules[flag]]
    wanted = len(molecules) if arguments.draw is None else arguments.draw + arguments.validation
    if wanted > len(molecules) or wanted <= arguments.validation:
        parser.error(f"{arguments.file} has {len(molecules):,} molecules without a flag, {wanted:,} are wanted")
    counts["left out: not drawn"] = len(molecules) - wanted
    drawn = molecules[["smiles"]].sample(wanted, random_state=0).reset_index(drop=True)
    drawn["row_id"] = range(wanted)
    arguments.out.mkdir(parents=True, exist_ok=True)
    parts = {"validation": drawn[: arguments.validation], "train": drawn[arguments.validation :]}
    for name, part in parts.items():
        counts[name] = len(part)
        part.to_parquet(arguments.out / f"{name}.parquet", index=False)
    (arguments.out / "exclusions.json").write_text(json.dumps(counts, indent=2) + "\n")
    print(f"{json.dumps(counts, indent=2)}\nwritten to {arguments.out}/")


if __name__ == "__main__":
    main()
