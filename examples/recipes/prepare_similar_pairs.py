"""
Prepare pairs of similar molecules of which the second has the better property, to fine-tune a model that writes SMILES.

    python examples/recipes/prepare_similar_pairs.py ../shared/data/pretrain/zinc250k.parquet --property qed \\
        --target-value 0.9 --exclude ../shared/data/optimization/graph2graph_eval.parquet --out pairs
    hf-molrep pretrain x_mol --model my-x-mol --train_data pairs/train.parquet --num_train_epochs 5 \\
        --learning_rate 3e-4 --output_dir my-optimizer

Reads the column `smiles` of Parquet files, and `inchikey_block` and a column with the name of the property, which are
computed where they are missing. Writes `train.parquet` and `validation.parquet` (columns smiles, target_smiles,
similarity, gain, row_id) and `exclusions.json` with counts. Which part a pair belongs to depends on the InChIKey first
block of its first molecule alone. The paper's pairs are the default: the best of the ten most similar molecules. With
`--target-value` only molecules that reach it are targets, `--targets` of them for each molecule.
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from hf_molrep.chem.properties import PROPERTIES, properties
from hf_molrep.chem.smiles import MoleculeError, canonical_smiles_batch, inchikey_block
from hf_molrep.data.similar_pairs import similar_pairs
from hf_molrep.data.splits import block_fraction


def block_or_none(smiles: str) -> str | None:
    """Return the first block of the InChIKey; None for a molecule that has no InChI."""
    try:
        return inchikey_block(smiles)
    except MoleculeError:
        return None


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="Parquet with smiles")
    parser.add_argument("--exclude", type=Path, nargs="+", default=[], help="Parquet with smiles: to be left out")
    parser.add_argument("--property", default="qed", help=f"{' or '.join(PROPERTIES)}, or a column of the files")
    parser.add_argument("--minimize", action="store_true", help="smaller is better")
    parser.add_argument("--min-similarity", type=float, default=0.4)
    parser.add_argument("--min-gain", type=float, default=0.1)
    parser.add_argument("--target-value", type=float, help="the better molecule reaches this value of the property")
    parser.add_argument("--neighbours", type=int, default=10, help="most similar molecules to choose from")
    parser.add_argument("--targets", type=int, default=1, help="pairs for each molecule that is to be improved")
    parser.add_argument("--draw", type=int, help="draw so many molecules, with seed 0")
    parser.add_argument("--out", type=Path, default=Path("pairs"))
    parser.add_argument("--validation-fraction", type=float, default=0.02)
    arguments = parser.parse_args(argv)

    name = arguments.property
    tables = [pd.read_parquet(file) for file in arguments.files]
    given = name in tables[0]
    if not given and name not in PROPERTIES:
        parser.error(f"the property is {' or '.join(PROPERTIES)} or a column of {arguments.files[0]}, not {name}")
    columns = ["smiles", *([name] if given else []), *(["inchikey_block"] if "inchikey_block" in tables[0] else [])]
    molecules = pd.concat([table[columns] for table in tables], ignore_index=True)
    counts = {"rows": len(molecules)}
    if arguments.draw is not None and arguments.draw < len(molecules):
        molecules = molecules.sample(arguments.draw, random_state=0).sort_index()
    molecules["smiles"] = canonical_smiles_batch(molecules.smiles.tolist(), "clean", on_error="skip")
    molecules = molecules[[isinstance(text, str) for text in molecules.smiles]].drop_duplicates("smiles")
    counts["molecules"] = len(molecules)
    if "inchikey_block" not in molecules:
        molecules["inchikey_block"] = molecules.smiles.map(block_or_none)
    named = molecules.inchikey_block.notna()
    counts["left out: has no InChI"] = int((~named).sum())
    excluded = {inchikey_block(text) for file in arguments.exclude for text in pd.read_parquet(file).smiles}
    evaluated = molecules.inchikey_block.isin(excluded)
    counts["left out: molecule to be evaluated (InChIKey first block)"] = int(evaluated.sum())
    molecules = molecules[named & ~evaluated]
    smiles = molecules.smiles.tolist()
    values = molecules[name].to_numpy() if given else properties(smiles, name)
    sign = -1 if arguments.minimize else 1
    pairs = similar_pairs(
        smiles,
        sign * values,
        (arguments.min_similarity, 0.999),
        arguments.min_gain,
        neighbours=arguments.neighbours,
        target_value=None if arguments.target_value is None else sign * arguments.target_value,
        targets=arguments.targets,
    )
    blocks = molecules.inchikey_block.tolist()
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
        [block_fraction(blocks[pair.source]) < arguments.validation_fraction for pair in pairs], dtype=bool
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", table[~held_out]), ("validation", table[held_out])):
        counts[name] = len(part)
        part.to_parquet(arguments.out / f"{name}.parquet", index=False)
    (arguments.out / "exclusions.json").write_text(json.dumps(counts, indent=2) + "\n")
    print(f"{json.dumps(counts, indent=2)}\nwritten to {arguments.out}/")


if __name__ == "__main__":
    main()
