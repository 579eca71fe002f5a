"""Arguments and messages of the commands that read a file of molecules and write one."""

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..inference.files import FileOptions, FileSummary


def add_file_arguments(parser: argparse.ArgumentParser, optional_input: bool = False) -> None:
    """Add the arguments for input, output and processing. `optional_input`: the command also runs without a file."""
    from ..data.files import FORMATS
    from ..inference import BATCH_TOKENS, WINDOW

    endings = ", ".join(FORMATS)
    nargs = {"nargs": "?"} if optional_input else {}
    parser.add_argument("input", metavar="IN", help=f"{endings}, also with .gz; - is standard input", **nargs)
    parser.add_argument(
        "output", metavar="OUT", help=".parquet, .csv or .tsv (the last two also .gz); - is standard output"
    )
    parser.add_argument("--column", help="column with the molecules (default: found by its name)")
    parser.add_argument("--input-format", help="csv, tsv, smi, sdf or parquet (default: from the ending; csv for -)")
    parser.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS, help="padded tokens per batch (%(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="(%(default)s)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    parser.add_argument("--workers", type=int, help="processes that prepare molecules (default: 0; up to 8 with a GPU)")
    parser.add_argument("--window", type=int, default=WINDOW, help="rows prepared and saved together (%(default)s)")
    parser.add_argument(
        "--on-error", choices=("skip", "raise"), default="skip", help="if a molecule fails (%(default)s)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="continue a stopped run")
    existing.add_argument("--overwrite", action="store_true", help="replace OUT, and delete a stopped run")


def file_options(args: argparse.Namespace, kind: str = "smiles") -> "FileOptions":
    """Make the options from the arguments; `kind` is what the column holds, `"smiles"` or `"iupac"`."""
    from ..data.files import molecule_column
    from ..inference.files import FileOptions

    return FileOptions(
        column=args.column,
        given_as=molecule_column(kind),
        format=args.input_format,
        batch_tokens=args.batch_tokens,
        dtype=args.dtype,
        window=args.window,
        num_workers=args.workers,
        on_error=args.on_error,
        resume=args.resume,
        overwrite=args.overwrite,
        progress=not args.quiet,
    )


def report(summary: "FileSummary", output: str, what: str) -> int:
    """Print how many molecules were done (`what`: "embedded") and failed. Returns the exit status: 1 if all failed."""
    for line in summary.failures:
        print(f"  {line}", file=sys.stderr)
    if summary.failed > len(summary.failures):
        print(f"  and {summary.failed - len(summary.failures)} more", file=sys.stderr)
    failures = f"{summary.failed} failed (column 'error' says why)" if summary.failed else "none failed"
    print(
        f"{summary.rows - summary.failed} of {summary.rows} molecules {what}, {failures}: "
        + ("standard output" if output == "-" else output),
        file=sys.stderr if output == "-" else sys.stdout,
    )
    return 1 if summary.rows and summary.failed == summary.rows else 0


def report_interruption(parts: object) -> int:
    """Print where the finished parts of an interrupted run are. Returns the exit status."""
    print(f"Stopped; finished parts are in {parts}. Run it again with --resume to continue.", file=sys.stderr)
    return 130
