"""
Prepare SMILES-IUPAC pairs for MM-Deacon: clean, leave out benchmark molecules, split by molecule.

    python examples/recipes/prepare_iupac_pairs.py ../shared/data/iupac/smiles_iupac_pairs.parquet \
        --exclude ../shared/data/moleculenet/benchmark_blocks.parquet --out iupac_pairs

Writes `train.parquet`, `validation.parquet`, `test.parquet` (columns smiles, iupac_name, source, opsin_check,
inchikey_block, formula, row_id) and `exclusions.json` with the counts of what was left out and why. Which part a
molecule belongs to depends on its InChIKey first block alone, so stereoisomers stay together; validation and test hold
one molecule per block, with a name that OPSIN turns into exactly that structure.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from hf_molrep.chem.smiles import MoleculeError, canonical_smiles_batch, molecular_formula
from hf_molrep.data.splits import block_fraction


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, help="Parquet with smiles, iupac_name, source, opsin_check, primary")
    parser.add_argument("--exclude", type=Path, help="Parquet with inchikey_block: molecules to leave out")
    parser.add_argument("--exclude-source", nargs="*", default=["massbank"], help="licence forbids shipping")
    parser.add_argument("--out", type=Path, default=Path("iupac_pairs"))
    parser.add_argument("--test-fraction", type=float, default=0.06)
    parser.add_argument("--validation-fraction", type=float, default=0.02)
    arguments = parser.parse_args(argv)

    pairs = pd.read_parquet(arguments.pairs)
    counts = {"rows": len(pairs)}

    def keep(mask: pd.Series, reason: str) -> None:
        nonlocal pairs
        counts[f"left out: {reason}"] = int((~mask).sum())
        pairs = pairs[mask]

    keep(~pairs.source.isin(arguments.exclude_source), f"source {', '.join(arguments.exclude_source)}")
    if arguments.exclude:
        blocks = set(pd.read_parquet(arguments.exclude).inchikey_block)
        keep(~pairs.inchikey_block.isin(blocks), "benchmark molecule (InChIKey first block)")
    keep(pairs.primary, "further name of the same SMILES")

    smiles: list = []
    for start in tqdm(range(0, len(pairs), 5000), desc="canonicalising", unit_scale=5000):
        smiles += canonical_smiles_batch(pairs.smiles.iloc[start : start + 5000].tolist(), "clean", on_error="skip")
    pairs = pairs.assign(smiles=smiles)
    keep(~pairs.smiles.map(lambda value: isinstance(value, MoleculeError)), "SMILES refused")
    keep(~pairs.duplicated("smiles"), "same SMILES after standardisation")
    pairs["formula"] = [molecular_formula(text) for text in tqdm(pairs.smiles, desc="formulas")]
    pairs["row_id"] = range(len(pairs))

    part = pairs.inchikey_block.map(block_fraction)
    held_out = part < arguments.test_fraction + arguments.validation_fraction
    exact = (pairs.opsin_check == "exact") & ~pairs.duplicated("inchikey_block")
    counts["left out: not exact, or a further stereoisomer, in validation or test"] = int((held_out & ~exact).sum())
    parts = {
        "train": pairs[~held_out],
        "validation": pairs[held_out & exact & (part >= arguments.test_fraction)],
        "test": pairs[held_out & exact & (part < arguments.test_fraction)],
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, frame in parts.items():
        counts[name] = len(frame)
        frame.drop(columns="primary").to_parquet(arguments.out / f"{name}.parquet", index=False)
    (arguments.out / "exclusions.json").write_text(json.dumps(counts, indent=2) + "\n")
    print(f"{json.dumps(counts, indent=2)}\nwritten to {arguments.out}/")


if __name__ == "__main__":
    main()
