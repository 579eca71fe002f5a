"""`hf-molrep split`: split a data set into training, validation and test parts, as a file for `finetune`."""

import argparse
import sys
from collections.abc import Mapping

import numpy as np

from ..chem.smiles import MoleculeError
from ..training.finetuning_files import KINDS, read_table

SHOWN_FAILURES = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `split`."""
    parser.epilog = (
        "Molecules that cannot be read are left out and reported; the numbers in OUT count the others from 0. OUT "
        "holds a checksum of the molecules and is only valid for these data. Rows with the same molecule, or the same "
        "molecules in any order, are in the same part."
    )
    add_molecule_arguments(parser)
    parser.add_argument("output", metavar="OUT", help="JSON file to write")
    parser.add_argument("--kind", choices=KINDS, default="scaffold", help="(%(default)s)")
    parser.add_argument("--fractions", nargs=3, type=float, default=(0.8, 0.1, 0.1), metavar=("TRAIN", "VALID", "TEST"))
    parser.add_argument("--seed", type=int, default=0, help="seed of balanced_scaffold and random (%(default)s)")
    parser.add_argument("--chirality", action="store_true", help="stereoisomers of a scaffold are different scaffolds")


def add_molecule_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for the source of the molecules."""
    parser.add_argument("data", metavar="DATA", help=".csv, .tsv (also .gz) or .parquet, a folder, or a Hub dataset")
    parser.add_argument(
        "--smiles-column",
        nargs="+",
        default=["smiles"],
        metavar="COLUMN",
        help="(smiles) two columns: pairs; more: the parts of a row, as of a reaction",
    )


def report_failures(failures: Mapping[int, MoleculeError]) -> None:
    """Print the first few failures to standard error; rows are counted from 1."""
    for row in sorted(failures)[:SHOWN_FAILURES]:
        print(f"  row {row + 1}, {failures[row]}", file=sys.stderr)
    if len(failures) > SHOWN_FAILURES:
        print(f"  and {len(failures) - SHOWN_FAILURES} more", file=sys.stderr)


def sizes(parts: Mapping[str, np.ndarray]) -> str:
    """Format the sizes of the parts, as `train 80, valid 10, test 10`."""
    return ", ".join(f"{part} {len(rows):,}" for part, rows in parts.items())


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from ..data.splits import write_split

    table = read_table(args.data, args.smiles_column)
    report_failures(table.failures)
    split = table.split(args.kind, args.seed, args.chirality, args.fractions)
    write_split(args.output, split, table.texts)
    print(f"{len(table.rows):,} molecules, {len(table.failures):,} left out; {sizes(split.parts)}: {args.output}")
    return 0
