"""`hf-molrep predict`: properties of the molecules of a file, in constant memory."""

import argparse
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..chem.smiles import MoleculeError
from ..data.files import MoleculeReader, file_format
from ..data.table_writer import TableWriter
from .split import SHOWN_FAILURES

if TYPE_CHECKING:
    import pyarrow as pa


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `predict`."""
    from ..data.files import FORMATS, IN_SPACE
    from ..inference import BATCH_TOKENS

    parser.epilog = (
        "OUT has all columns of IN, then smiles_used (the SMILES that the model saw), one column per task (values in "
        "the units of the labels, or probabilities; empty where a molecule failed) and error (why it failed). "
        f"{IN_SPACE} The status is 0 unless every molecule failed."
    )
    parser.add_argument("input", metavar="IN", help=f"{', '.join(FORMATS)}, also with .gz; - is standard input")
    parser.add_argument("output", metavar="OUT", help=".parquet, .csv, .tsv (these two also .gz); - is standard output")
    parser.add_argument("--model", required=True, help="folder or Hub repository of a fine-tuned checkpoint")
    parser.add_argument("--column", help="with the SMILES (default: found by its name)")
    parser.add_argument("--prefix", default="predicted_", help="of the names of the new columns (%(default)s)")
    parser.add_argument("--input-format", help="csv, tsv, smi, sdf or parquet (default: from the ending; csv for -)")
    parser.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS, help="padded tokens per batch (%(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="(%(default)s)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if file_format(args.output) not in ("csv", "tsv", "parquet"):
        raise ValueError(f"{args.output}: predictions are written as .parquet, .csv or .tsv")
    if args.output != "-" and os.path.exists(args.output):
        if os.path.exists(args.input) and os.path.samefile(args.input, args.output):
            raise ValueError("IN and OUT are the same file")
        if not args.overwrite:
            raise ValueError(f"{args.output} exists: --overwrite replaces it")
    with MoleculeReader(args.input, args.column, format=args.input_format) as reader:
        from ..inference.checkpoints import load_finetuned
        from ..inference.engine import reads, reports_of
        from ..inference.prediction import task_units

        model, processor = load_finetuned(args.model, args.device)
        reader.in_space(partial(reads, processor))
        units = task_units(model.config)
        columns = {args.prefix + task: unit for task, unit in units.items()}
        schema = _schema(reader.schema, reports_of(processor), columns, args.input)
        failures: dict[int, str] = {}
        done = 0
        with TableWriter(args.output, schema) as writer:
            for table, results in _predicted(args, reader, model, processor):
                writer.write(_with_results(table, results, schema, len(units)))
                for row, result in enumerate(results):
                    if isinstance(result, MoleculeError):
                        failures[done + row] = str(result) if len(failures) < SHOWN_FAILURES else ""
                done += len(results)
    return _tell(args.output, done, failures, units)


def _schema(own: "pa.Schema", reports: Sequence[str], columns: dict[str, str | None], source: str) -> "pa.Schema":
    """`columns`: names of the predictions, and their units."""
    import pyarrow as pa

    told = ("smiles_used", *reports)
    taken = [name for name in (*told, *columns, "error") if name in own.names]
    if taken:
        raise ValueError(f"{source} already has a column {taken[0]!r}: choose another --prefix, or rename the column")
    schema = own
    for name in told:
        schema = schema.append(pa.field(name, pa.string()))
    for name, unit in columns.items():
        schema = schema.append(pa.field(name, pa.float32(), metadata={"unit": unit} if unit else None))
    return schema.append(pa.field("error", pa.string()))


def _predicted(
    args: argparse.Namespace, reader: MoleculeReader, model: Any, processor: Any
) -> Iterator[tuple["pa.RecordBatch", list]]:
    """Each piece of the input with what the model says of its molecules."""
    from tqdm import tqdm

    from ..inference.engine import WINDOW, infer
    from ..inference.prediction import predictions

    waiting: deque[pa.RecordBatch] = deque()

    def molecules() -> Iterator[Any]:
        for piece in reader.pieces(WINDOW):
            waiting.append(piece.table)
            yield from piece.molecules

    options = {"batch_tokens": args.batch_tokens, "dtype": args.dtype, "on_error": "skip", "window": WINDOW}
    options["kind"] = reader.kind
    results: list = []
    with tqdm(total=reader.total, unit=" molecules", disable=args.quiet, mininterval=0.5) as bar:
        for result in infer(model, processor, molecules(), predictions, **options):
            results.append(result)
            if len(results) == waiting[0].num_rows:
                yield waiting.popleft(), results
                bar.update(len(results))
                results = []


def _with_results(own: "pa.RecordBatch", results: list, schema: "pa.Schema", tasks: int) -> "pa.RecordBatch":
    import pyarrow as pa

    failed = [isinstance(result, MoleculeError) for result in results]
    values = np.zeros((len(results), tasks), dtype=np.float32)
    for row, result in enumerate(results):
        if not failed[row]:
            values[row] = result.output
    told = [{"error": result.reason} if bad else result.told for result, bad in zip(results, failed, strict=True)]

    def texts(name: str) -> pa.Array:
        return pa.array([each.get(name) for each in told], pa.string())

    predicted = [pa.array(column, pa.float32(), mask=np.array(failed)) for column in values.T]
    before = schema.names[len(own.columns) : -1 - tasks]
    columns = [*own.columns, *map(texts, before), *predicted, texts("error")]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _tell(output: str, rows: int, failures: dict[int, str], units: dict[str, str | None]) -> int:
    for row in list(failures)[:SHOWN_FAILURES]:
        print(f"  row {row + 1}, {failures[row]}", file=sys.stderr)
    if len(failures) > SHOWN_FAILURES:
        print(f"  and {len(failures) - SHOWN_FAILURES} more", file=sys.stderr)
    what = ", ".join(f"{task} ({unit})" if unit else task for task, unit in units.items())
    failed = f"{len(failures)} failed (column 'error' says why)" if failures else "none failed"
    where = "standard output" if output == "-" else output
    print(
        f"{what} of {rows - len(failures)} of {rows} molecules predicted, {failed}: {where}",
        file=sys.stderr if output == "-" else sys.stdout,
    )
    return 1 if rows and len(failures) == rows else 0
