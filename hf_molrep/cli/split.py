"""`hf-molrep split`: the rows of a data set to training, validation and test part, as a file that `finetune` reads."""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from ..chem.smiles import MoleculeError, canonical_smiles_batch

KINDS = ("scaffold", "balanced_scaffold", "random")
SHOWN_FAILURES = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `split`."""
    parser.epilog = (
        "Molecules that cannot be read are left out, and reported; the numbers in OUT count the others from 0. OUT "
        "holds a checksum of the molecules and fits no other data. Rows with the same molecule share a part."
    )
    parser.add_argument("data", metavar="DATA", help=".csv, .tsv (also .gz) or .parquet, a folder, or a Hub dataset")
    parser.add_argument("output", metavar="OUT", help="JSON file to write")
    parser.add_argument("--smiles-column", default="smiles", help="(%(default)s)")
    parser.add_argument("--kind", choices=KINDS, default="scaffold", help="(%(default)s)")
    parser.add_argument("--fractions", nargs=3, type=float, default=(0.8, 0.1, 0.1), metavar=("TRAIN", "VALID", "TEST"))
    parser.add_argument("--seed", type=int, default=0, help="of balanced_scaffold and random (%(default)s)")
    parser.add_argument("--chirality", action="store_true", help="stereoisomers of a scaffold are different scaffolds")


def readable(smiles: Sequence) -> tuple[list[int], dict[int, MoleculeError], list[str]]:
    """Which rows hold a molecule, what is wrong with the others (by row), and the canonical SMILES of the former."""
    texts = [text if isinstance(text, str) else "" for text in smiles]
    results = canonical_smiles_batch(texts, "clean", on_error="skip")
    failures = {row: result for row, result in enumerate(results) if isinstance(result, MoleculeError)}
    rows = [row for row in range(len(results)) if row not in failures]
    if not rows:
        raise ValueError(f"none of {len(results)} rows holds a molecule; the first: {failures[0]}")
    return rows, failures, [results[row] for row in rows]


def report_failures(failures: dict[int, MoleculeError]) -> None:
    """The first few on standard error; rows are counted from 1."""
    for row in sorted(failures)[:SHOWN_FAILURES]:
        print(f"  row {row + 1}, {failures[row]}", file=sys.stderr)
    if len(failures) > SHOWN_FAILURES:
        print(f"  and {len(failures) - SHOWN_FAILURES} more", file=sys.stderr)


def sizes(parts: dict[str, np.ndarray]) -> str:
    """`train 80, valid 10, test 10`."""
    return ", ".join(f"{part} {len(rows):,}" for part, rows in parts.items())


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..data.datasets import load_molecules
    from ..data.splits import make_split, write_split

    smiles = load_molecules(args.data, smiles_column=args.smiles_column)["smiles"][:]
    rows, failures, _ = readable(smiles)
    report_failures(failures)
    used = [smiles[row] for row in rows]
    split = make_split(args.kind, used, args.fractions, args.seed, args.chirality)
    write_split(args.output, split, used)
    print(f"{len(used):,} molecules, {len(failures):,} left out; {sizes(split.parts)}: {args.output}")
    return 0
