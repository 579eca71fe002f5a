"""
Molecules of many kinds for pre-training a graph method: drug-like ones, salts and ions, and above all small ones.

    python examples/recipes/prepare_mixture.py ../shared/data --out mixture

Draws from each collection of the data folder as many molecules as `COLLECTIONS` says, and takes all molecules of at
most `SMALL` heavy atoms of PubChem's. Leaves out benchmark molecules (InChIKey first block) and rows whose licence
forbids shipping what was trained on them. Writes `train.parquet` and `validation.parquet` (columns smiles,
inchikey_block, source, row_id) and `exclusions.json` with the counts of what was left out and why. Which part a
molecule belongs to depends on its InChIKey first block alone.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from hf_molrep.chem.smiles import MoleculeError, canonical_smiles_batch, inchikey_block, parse
from hf_molrep.data.splits import block_fraction

COLLECTIONS = {  # Parquet file: molecules drawn
    "iupac/smiles_iupac_pairs.parquet": 15_000,
    "pretrain/chembl_validation.parquet": 8_000,
    "pretrain/zinc250k.parquet": 4_000,
    "pretrain/geom_drugs_smiles.parquet": 2_000,
    "generation/moses_train.parquet": 2_000,
}
SMALL = 12  # heavy atoms
FORBIDDEN = {"massbank"}  # values of `source` in the pairs: some records are not for commercial use


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("mixture"))
    parser.add_argument("--validation-fraction", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    blocks = set(pd.read_parquet(arguments.data / "moleculenet" / "benchmark_blocks.parquet").inchikey_block)
    counts: dict[str, int] = {}
    parts = []
    for file, wanted in COLLECTIONS.items():
        table = pd.read_parquet(arguments.data / file)
        name = Path(file).stem
        counts[f"{name}: rows"] = len(table)
        table = table.drop_duplicates("smiles")
        if "source" in table:
            allowed = ~table.source.isin(FORBIDDEN)
            counts[f"{name}: left out, source {', '.join(sorted(FORBIDDEN))}"] = int((~allowed).sum())
            table = table[allowed]
        for flag in table.columns.intersection(["in_moleculenet", "in_moleculeace"]):
            counts[f"{name}: left out, {flag}"] = int(table[flag].sum())
            table = table[~table[flag]]
        if "inchikey_block" in table:
            fits = ~table.inchikey_block.isin(blocks)
            counts[f"{name}: left out, benchmark molecule (InChIKey first block)"] = int((~fits).sum())
            table = table[fits]
        drawn = table.sample(min(wanted, len(table)), random_state=arguments.seed)
        if "iupac_name" in table:
            rest = table.drop(drawn.index)
            # a SMILES of so few characters cannot hold more atoms, and a longer one need not be parsed
            short = rest[rest.smiles.str.len() <= 4 * SMALL]
            small = [parse(text).GetNumHeavyAtoms() <= SMALL for text in tqdm(short.smiles, desc="small molecules")]
            drawn = pd.concat([drawn, short[small]])
        if "inchikey_block" not in drawn:
            drawn = drawn.assign(inchikey_block=[inchikey_block(text) for text in tqdm(drawn.smiles, desc="InChI")])
            drawn = drawn[~drawn.inchikey_block.isin(blocks)]
        counts[f"{name}: drawn"] = len(drawn)
        parts.append(drawn[["smiles", "inchikey_block"]].assign(source=name))
    molecules = pd.concat(parts, ignore_index=True)

    def keep(mask: pd.Series, reason: str) -> None:
        nonlocal molecules
        counts[f"left out: {reason}"] = int((~mask).sum())
        molecules = molecules[mask]

    smiles: list = []
    for start in tqdm(range(0, len(molecules), 5000), desc="canonicalising", unit_scale=5000):
        smiles += canonical_smiles_batch(molecules.smiles.iloc[start : start + 5000].tolist(), "clean", on_error="skip")
    molecules = molecules.assign(smiles=smiles)
    keep(~molecules.smiles.map(lambda value: isinstance(value, MoleculeError)), "SMILES refused")
    keep(~molecules.duplicated("smiles"), "same SMILES after standardisation")
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
