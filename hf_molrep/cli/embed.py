"""`hf-molrep embed`: the molecules of a file to embeddings, in constant memory, resumable."""

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..chem.smiles import MoleculeError
from ..data.files import MoleculeReader, Piece, file_format
from ..data.table_writer import TableWriter

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_FAILURES = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `embed`."""
    from ..data.files import FORMATS, IN_SPACE
    from ..inference import BATCH_TOKENS, WINDOW

    endings = ", ".join(FORMATS)
    parser.epilog = (
        "OUT has all columns of IN, then smiles_used (the SMILES that the model saw), error (why a molecule failed, "
        f"else empty) and embedding (Parquet: list of float32; CSV: JSON). {IN_SPACE} A killed run is taken up again "
        "with --resume and gives the same file. The status is 0 unless every molecule failed."
    )
    parser.add_argument("input", metavar="IN", help=f"{endings}, also with .gz; - is standard input")
    parser.add_argument(
        "output", metavar="OUT", help=".parquet, .csv or .tsv (the last two also .gz); - is standard output"
    )
    parser.add_argument(
        "--model", default="mm-deacon-mini", help="folder, Hub repository or shipped name (%(default)s)"
    )
    parser.add_argument("--column", help="with the molecules (default: found by its name)")
    parser.add_argument("--kind", choices=("smiles", "iupac"), default="smiles", help="what it holds (%(default)s)")
    parser.add_argument("--input-format", help="csv, tsv, smi, sdf or parquet (default: from the ending; csv for -)")
    parser.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS, help="padded tokens per batch (%(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="(%(default)s)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    parser.add_argument("--workers", type=int, help="processes that prepare molecules (default: 0, with a GPU up to 8)")
    parser.add_argument("--window", type=int, default=WINDOW, help="rows prepared and saved together (%(default)s)")
    parser.add_argument("--on-error", choices=("skip", "raise"), default="skip", help="of one molecule (%(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    again.add_argument("--overwrite", action="store_true", help="replace OUT, forget a run that was stopped")


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if file_format(args.output) not in ("csv", "tsv", "parquet"):
        raise ValueError(f"{args.output}: embeddings are written as .parquet, .csv or .tsv")
    parts = Path(f"{args.output}.parts")
    if args.output != "-":
        if not _may_start(args, parts):
            print(f"{args.output} is there and no unfinished run beside it: nothing to resume.")
            return 0
        if os.path.abspath(args.input) == os.path.abspath(args.output):
            raise ValueError("IN and OUT are the same file")
    if args.window < 1 or args.batch_tokens < 1:
        raise ValueError("--window and --batch-tokens are at least 1")

    with MoleculeReader(args.input, args.column, args.kind, args.input_format) as reader:
        _refuse_taken(args.input, reader.schema, ("smiles_used", "error", "embedding"))
        # after the checks, so that a mistyped column is reported at once
        from transformers import AutoModel

        from ..inference.checkpoints import load_checkpoint
        from ..inference.engine import reads, reports_of

        model, processor = load_checkpoint(AutoModel, args.model, args.device)
        _refuse_taken(args.input, reader.schema, reports_of(processor))
        reader.in_space(partial(reads, processor))
        schema = _schema(reader, args, model, processor)
        if args.output == "-":
            return _stream(args, reader, model, processor, schema)
        settings = _settings(args, reader, schema, model, processor)
        _prepare_parts(parts, settings, args.resume)
        try:
            for number, digest, table in _embedded(args, reader, model, processor, schema, parts):
                _write_part(parts, number, digest, table)
        except (ValueError, OSError):
            if not any(parts.glob("part-*.parquet")):
                shutil.rmtree(parts)  # nothing that could be continued
            raise
        except KeyboardInterrupt:
            print(f"Stopped; what is done stands in {parts}. Run it again with --resume to continue.", file=sys.stderr)
            return 130
    return _join(args, parts, schema)


def _may_start(args: argparse.Namespace, parts: Path) -> bool:
    """Whether there is anything to do; ValueError where it would have to be said what."""
    if args.overwrite:
        shutil.rmtree(parts, ignore_errors=True)
    elif args.resume:
        return parts.is_dir() or not os.path.exists(args.output)
    elif parts.is_dir():
        raise ValueError(f"an unfinished run stands in {parts}: --resume continues it, --overwrite forgets it")
    elif os.path.exists(args.output):
        raise ValueError(f"{args.output} exists: --overwrite replaces it")
    return True


def _refuse_taken(source: str, own: "pa.Schema", added: Sequence[str]) -> None:
    taken = [name for name in added if name in own.names]
    if taken:
        raise ValueError(f"{source} already has a column {taken[0]!r}, which embed would write; rename it first")


def _schema(reader: MoleculeReader, args: argparse.Namespace, model: Any, processor: Any) -> "pa.Schema":
    import pyarrow as pa

    from ..inference.engine import reports_of

    own = reader.schema
    made = {"model": args.model, "kind": args.kind, "column": reader.column}
    made["standardize"] = getattr(processor, "standardize", None)
    told = ("smiles_used",) if args.kind == "smiles" else ()
    schema = own
    for name in (*told, *reports_of(processor), "error"):
        schema = schema.append(pa.field(name, pa.string()))
    schema = schema.append(pa.field("embedding", pa.list_(pa.float32(), model.config.hidden_size)))
    return schema.with_metadata({**(own.metadata or {}), b"hf_molrep": json.dumps(made).encode()})


def _settings(
    args: argparse.Namespace, reader: MoleculeReader, schema: "pa.Schema", model: Any, processor: Any
) -> dict[str, Any]:
    """All that decides what the rows of the output hold, but for the rows of the input, which have digests."""
    import tempfile

    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    with tempfile.TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            digest.update(path.read_bytes())
    return {
        "model": args.model,
        "checkpoint": digest.hexdigest(),
        "kind": reader.kind,
        "column": reader.column,
        "columns": schema.names,
        "dtype": args.dtype,
        "device": next(model.parameters()).device.type,
        "batch_tokens": args.batch_tokens,
        "window": args.window,
    }


def _prepare_parts(parts: Path, settings: dict[str, Any], resume: bool) -> None:
    path = parts / "settings.json"
    if resume and path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in settings if before.get(name) != settings[name]]
        if changed:
            told = "; ".join(f"{name} was {before.get(name)!r}, is {settings[name]!r}" for name in changed)
            raise ValueError(f"the run in {parts} was another one, --overwrite forgets it: {told}")
        return
    parts.mkdir(parents=True, exist_ok=True)
    _replace(path, lambda unfinished: unfinished.write_text(json.dumps(settings, indent=1), encoding="utf-8"))


def _replace(path: Path, write: Any) -> None:
    """Write a file so that it is either there and whole, or not there."""
    unfinished = path.with_name(path.name + ".tmp")
    write(unfinished)
    with open(unfinished, "rb") as file:
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def _part(parts: Path, number: int) -> Path:
    return parts / f"part-{number:06d}.parquet"


def _digest(piece: Piece) -> str:
    return hashlib.blake2b(repr(piece.table.to_pydict()).encode(), digest_size=16).hexdigest()


def _embedded(
    args: argparse.Namespace,
    reader: MoleculeReader,
    model: Any,
    processor: Any,
    schema: "pa.Schema",
    parts: Path | None = None,
) -> Iterator[tuple[int, str, "pa.RecordBatch"]]:
    """Each piece of the input that has no part yet: its number, its digest, and its rows with embeddings."""
    import pyarrow.parquet as pq
    from tqdm import tqdm

    from ..inference.embedding import pooled
    from ..inference.engine import infer

    waiting: deque[tuple[int, str, pa.RecordBatch]] = deque()
    bar = tqdm(total=reader.total, unit=" molecules", disable=args.quiet, mininterval=0.5)

    def advance(rows: int, read: int) -> None:
        fraction = reader.fraction()
        if reader.total is None and fraction:
            bar.total = int(read / fraction)  # a guess that becomes right
        bar.update(rows)

    read = 0

    def molecules() -> Iterator[Any]:
        nonlocal read
        number = -1
        for number, piece in enumerate(reader.pieces(args.window)):
            digest = _digest(piece)
            read += piece.table.num_rows
            if parts is not None and _part(parts, number).is_file():
                if pq.read_schema(_part(parts, number)).metadata[b"hf_molrep_digest"].decode() != digest:
                    raise ValueError(
                        f"rows {read - piece.table.num_rows + 1} to {read} of {args.input} are not those of the run in "
                        f"{parts}; --overwrite forgets it"
                    )
                advance(piece.table.num_rows, read)
            else:
                waiting.append((number, digest, piece.table))
                yield from piece.molecules
        if parts is not None and _part(parts, number + 1).is_file():
            raise ValueError(
                f"{args.input} has only {read} rows, fewer than the run in {parts}; --overwrite forgets it"
            )

    workers = args.workers
    if workers is None:
        on_gpu = next(model.parameters()).device.type == "cuda"
        workers = min(8, (os.cpu_count() or 1) - 1) if on_gpu else 0
    # pieces are as long as windows, so that what a piece gives does not depend on those before it
    options = {"kind": reader.kind, "batch_tokens": args.batch_tokens, "dtype": args.dtype, "window": args.window}
    with bar:
        results = infer(model, processor, molecules(), pooled, on_error="skip", num_workers=workers, **options)
        for first in results:
            number, digest, table = waiting.popleft()
            rows = [first, *islice(results, table.num_rows - 1)]
            failed = next((row for row, result in enumerate(rows) if isinstance(result, MoleculeError)), None)
            if failed is not None and args.on_error == "raise":
                error = rows[failed]
                reason = f"{error.reason} (row {number * args.window + failed + 1})"
                raise MoleculeError(error.smiles, reason, error.notation)
            yield number, digest, _with_results(table, rows, schema)
            advance(table.num_rows, read)


def _with_results(own: "pa.RecordBatch", results: list, schema: "pa.Schema") -> "pa.RecordBatch":
    import pyarrow as pa

    type_ = schema.field("embedding").type
    values = np.zeros((len(results), type_.list_size), dtype=np.float32)
    failed = np.zeros(len(results), dtype=bool)
    told = []
    for row, result in enumerate(results):
        if isinstance(result, MoleculeError):
            failed[row] = True
            told.append({"error": result.reason})
        else:
            values[row] = result.output
            told.append(result.told)
    names = schema.names[len(own.columns) : -1]
    columns = [*own.columns, *(pa.array([each.get(name) for each in told], pa.string()) for name in names)]
    columns.append(pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=type_, mask=pa.array(failed)))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _write_part(parts: Path, number: int, digest: str, table: "pa.RecordBatch") -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = table.replace_schema_metadata({**table.schema.metadata, b"hf_molrep_digest": digest.encode()})
    _replace(_part(parts, number), lambda path: pq.write_table(pa.Table.from_batches([table]), path))


class _Tally:
    """What the summary says."""

    def __init__(self) -> None:
        self.rows, self.failed, self.shown = 0, 0, []

    def add(self, table: "pa.RecordBatch", column: str | None) -> None:
        errors = table.column("error")
        failed = len(errors) - errors.null_count
        if failed and len(self.shown) < SHOWN_FAILURES:
            for row, reason in enumerate(errors.to_pylist()):
                if reason is not None and len(self.shown) < SHOWN_FAILURES:
                    own = table.column(column or 0)[row].as_py()
                    text = repr(own if not isinstance(own, str) or len(own) <= 60 else f"{own[:40]}...{own[-17:]}")
                    self.shown.append(f"  row {self.rows + row + 1}, {text}: {reason}")
        self.rows += len(errors)
        self.failed += failed

    def tell(self, output: str) -> int:
        for line in self.shown:
            print(line, file=sys.stderr)
        if self.failed > len(self.shown):
            print(f"  and {self.failed - len(self.shown)} more", file=sys.stderr)
        where = "standard output" if output == "-" else output
        failures = f"{self.failed} failed (column 'error' says why)" if self.failed else "none failed"
        print(
            f"{self.rows - self.failed} of {self.rows} molecules embedded, {failures}: {where}",
            file=sys.stderr if output == "-" else sys.stdout,
        )
        return 1 if self.rows and self.failed == self.rows else 0


def _stream(args: argparse.Namespace, reader: MoleculeReader, model: Any, processor: Any, schema: "pa.Schema") -> int:
    """Straight to standard output."""
    tally = _Tally()
    with TableWriter("-", schema) as writer:
        for _, _, table in _embedded(args, reader, model, processor, schema):
            writer.write(table)
            tally.add(table, reader.column)
    return tally.tell("-")


def _join(args: argparse.Namespace, parts: Path, schema: "pa.Schema") -> int:
    """The parts to one file, one at a time; then they go."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = json.loads((parts / "settings.json").read_text(encoding="utf-8"))["column"]
    tally = _Tally()
    with TableWriter(args.output, schema) as writer:
        for path in sorted(parts.glob("part-*.parquet")):
            # read_table would hold several parts: this is what keeps the memory constant
            with pq.ParquetFile(path, pre_buffer=False) as part:
                for table in part.iter_batches(part.metadata.num_rows, use_threads=False):
                    writer.write(table.replace_schema_metadata(schema.metadata))
                    tally.add(table, column)
            pa.default_memory_pool().release_unused()
    shutil.rmtree(parts)
    return tally.tell(args.output)
