"""Run a model over a file of molecules and write a file of results, in constant memory and resumable."""

import hashlib
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..chem.smiles import MoleculeError, OnError, check_on_error
from ..data.files import MoleculeReader, Piece, file_format
from ..data.runs import check_continues
from ..data.table_writer import TableWriter
from ..processing.contract import MoleculeProcessor, choose_input
from . import BATCH_TOKENS, WINDOW
from .engine import Step, infer

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_FAILURES = 5
_CELL = 60  # characters of a molecule that a message shows


@dataclass
class FileTask:
    """
    What is computed for the molecules of a file.

    Attributes:
        step: see [`~hf_molrep.inference.engine.Step`].
        fields: the columns that it adds, after the processor's reports and `error`.
        arrays: makes one `pyarrow.Array` per field from the results of some molecules (None for one that failed).
        metadata: written to the schema of a Parquet file under `hf_molrep`.
        settings: further settings that results depend on; a continued run must have the same.
    """

    step: Step
    fields: "list[pa.Field]"
    arrays: "Callable[[list[Any]], list[pa.Array]]"
    metadata: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class FileOptions:
    """
    How a file is read and processed.

    Attributes:
        column: column with the molecules; None: found by its name. Several, for a model that reads several together.
        given_as: what it holds, `"smiles"` or `"iupac_name"`.
        format: format of the input, by default from its ending.
        batch_tokens, batch_size, dtype, window: see [`~hf_molrep.inference.engine.infer`]; a part has `window` rows.
        num_workers: number of processes that prepare molecules; None: 0, or up to 8 with a GPU.
        on_error: "skip" writes the reason into the column `error`, "raise" stops.
        resume: continue a stopped run; a complete output is left as it is.
        overwrite: replace the output, and delete a stopped run.
        progress: show a progress bar.
    """

    column: str | Sequence[str] | None = None
    given_as: str = "smiles"
    format: str | None = None
    batch_tokens: int = BATCH_TOKENS
    batch_size: int | None = None
    dtype: str | None = None
    window: int = WINDOW
    num_workers: int | None = None
    on_error: OnError = "skip"
    resume: bool = False
    overwrite: bool = False
    progress: bool = True


@dataclass
class FileSummary:
    """
    Counts of the rows of a file.

    Attributes:
        rows, failed: number of rows, and of those without a result.
        failures: messages of the first few failures, with their rows (counted from 1).
    """

    rows: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, table: "pa.RecordBatch", column: str | None) -> None:
        """Count the rows of a part; `column` holds the molecules (None: the first column)."""
        errors = table.column("error")
        failed = len(errors) - errors.null_count
        if failed and len(self.failures) < SHOWN_FAILURES:
            for row, reason in enumerate(errors.to_pylist()):
                if reason is not None and len(self.failures) < SHOWN_FAILURES:
                    own = table.column(column or 0)[row].as_py()
                    text = own if not isinstance(own, str) or len(own) <= _CELL else f"{own[:40]}...{own[-17:]}"
                    self.failures.append(f"row {self.rows + row + 1}, {text!r}: {reason}")
        self.rows += len(errors)
        self.failed += failed


class FileRun:
    """
    A run of a model over one file. Use it in a `with`: it opens and checks the files, so that problems show before a
    model is loaded.

    ```python
    with FileRun("in.csv", "out.parquet", FileOptions()) as run:
        if run.is_complete:
            return
        model, processor = load_checkpoint(AutoModel, "mm-deacon-mini")
        summary = run.process(model, processor, task)
    ```

    The output has all columns of the input, then `smiles_used` and the reports of the processor, `error` (why a
    molecule failed, else empty) and the columns of the task. Finished windows are kept as Parquet files in
    `<output>.parts` until all are done. A run that is killed and resumed gives the same rows, with numbers equal up to
    float rounding.

    Args:
        source: see [`~hf_molrep.data.files.MoleculeReader`]; "-" is standard input.
        output: .parquet, .csv or .tsv (the last two also .gz), or "-" for standard output.
        options: see [`FileOptions`].
    Raises:
        ValueError: the output or an unfinished run exists already; or see `MoleculeReader`.
    """

    def __init__(self, source: str, output: str, options: FileOptions):
        self.source, self.output, self.options = str(source), str(output), options
        check_on_error(options.on_error)
        if file_format(self.output) not in ("csv", "tsv", "parquet"):
            raise ValueError(f"{output}: a table is written as .parquet, .csv or .tsv")
        for name in ("window", "batch_tokens"):
            if getattr(options, name) < 1:
                raise ValueError(f"{name} is at least 1, not {getattr(options, name)}")
        self.parts = Path(f"{self.output}.parts")
        self.is_complete = False
        if self.output != "-":
            both = os.path.exists(self.source) and os.path.exists(self.output)
            if both and os.path.samefile(self.source, self.output):
                raise ValueError("input and output are the same file")
            self.is_complete = not self._may_start()

    def __enter__(self) -> "FileRun":
        if not self.is_complete:
            options = self.options
            self.reader = MoleculeReader(self.source, options.column, options.given_as, options.format)
        return self

    def __exit__(self, *_: object) -> None:
        if not self.is_complete:
            self.reader.close()

    def _may_start(self) -> bool:
        """Return whether there is anything to do. Raises ValueError for an existing output without an option for it."""
        if self.options.overwrite:
            shutil.rmtree(self.parts, ignore_errors=True)
        elif self.options.resume:
            return self.parts.is_dir() or not os.path.exists(self.output)
        elif self.parts.is_dir():
            raise ValueError(f"an unfinished run stands in {self.parts}: --resume continues it, --overwrite forgets it")
        elif os.path.exists(self.output):
            raise ValueError(f"{self.output} exists: --overwrite replaces it")
        return True

    def process(self, model: torch.nn.Module, processor: MoleculeProcessor, task: FileTask) -> FileSummary:
        """
        Run the model on all rows and write the output.

        Raises:
            MoleculeError: a molecule failed (`on_error="raise"`).
            ValueError: the input has a column that the task would write; or a resumed run has other settings or rows.
            KeyboardInterrupt: finished parts are kept in `parts`, for `resume`.
        """
        self._inputs = choose_input(processor, self.reader.columns, self.options.given_as)
        schema = self._schema(processor, task)
        if self.output == "-":
            summary = FileSummary()
            with TableWriter("-", schema) as writer:
                for _, _, table in self._results(model, processor, task, schema):
                    writer.write(table)
                    summary.add(table, self.reader.column)
            return summary
        settings = self._settings(model, processor, task, schema)
        self.parts.mkdir(parents=True, exist_ok=True)
        check_continues(self.parts / "settings.json", settings, self.options.resume)
        try:
            for number, digest, table in self._results(model, processor, task, schema):
                self._write_part(number, digest, table)
        except (ValueError, OSError):
            if not any(self.parts.glob("part-*.parquet")):
                shutil.rmtree(self.parts)  # nothing that could be continued
            raise
        return self._join(schema)

    def _schema(self, processor: MoleculeProcessor, task: FileTask) -> "pa.Schema":
        import pyarrow as pa

        own = self.reader.schema
        used = ("smiles_used",) if self._inputs & {"smiles", "mol_block"} else ()
        added = [pa.field(name, pa.string()) for name in (*used, *processor.reports, "error")] + task.fields
        taken = [each.name for each in added if each.name in own.names]
        if taken:
            raise ValueError(
                f"{self.source} already has a column {taken[0]!r}, which would be written: rename it, or choose "
                "another --prefix where there is one"
            )
        made = {**self._columns(), **task.metadata}
        metadata = {**(own.metadata or {}), b"hf_molrep": json.dumps(made).encode()}
        return pa.schema([*own, *added], metadata=metadata)

    def _columns(self) -> dict[str, Any]:
        """Return the columns of the molecules, for the records of the run."""
        more = self.reader.more_columns
        return {"column": self.reader.column, **({"more_columns": more} if more else {})}

    def _settings(
        self, model: torch.nn.Module, processor: MoleculeProcessor, task: FileTask, schema: "pa.Schema"
    ) -> dict[str, Any]:
        """Return all settings that results depend on; the rows of the input have digests of their own."""
        options = self.options
        return {
            "checkpoint": checkpoint_digest(model, processor),
            "inputs": sorted(self._inputs),
            **self._columns(),
            "columns": schema.names,
            "dtype": options.dtype,
            "device": next(model.parameters()).device.type,
            "batch_tokens": options.batch_tokens,
            "batch_size": options.batch_size,
            "window": options.window,
            **task.settings,
        }

    def _part(self, number: int) -> Path:
        return self.parts / f"part-{number:06d}.parquet"

    def _results(
        self, model: torch.nn.Module, processor: MoleculeProcessor, task: FileTask, schema: "pa.Schema"
    ) -> "Iterator[tuple[int, str, pa.RecordBatch]]":
        """Yield each piece of the input that has no part yet: its number, digest, and rows with results."""
        import pyarrow.parquet as pq
        from tqdm import tqdm

        options, reader, read = self.options, self.reader, 0
        in_parts = self.output != "-"
        waiting: deque[tuple[int, str, pa.RecordBatch]] = deque()
        bar = tqdm(total=reader.total, unit=" molecules", disable=not options.progress, mininterval=0.5)

        def advance(rows: int) -> None:
            fraction = reader.fraction()
            if reader.total is None and fraction:
                bar.total = int(read / fraction)  # an estimate that improves
            bar.update(rows)

        def rows() -> Iterator[dict[str, Any] | MoleculeError]:
            nonlocal read
            number = -1
            for number, piece in enumerate(reader.pieces(options.window, self._inputs)):
                digest, count = _digest(piece), piece.table.num_rows
                read += count
                if in_parts and self._part(number).is_file():
                    if pq.read_schema(self._part(number)).metadata[b"hf_molrep_digest"].decode() != digest:
                        raise ValueError(
                            f"rows {read - count + 1} to {read} of {self.source} are not those of the run in "
                            f"{self.parts}; --overwrite forgets it"
                        )
                    advance(count)
                else:
                    waiting.append((number, digest, piece.table))
                    yield from piece.rows
            if in_parts and self._part(number + 1).is_file():
                raise ValueError(
                    f"{self.source} has only {read} rows, fewer than the run in {self.parts}; --overwrite forgets it"
                )

        workers = options.num_workers
        if workers is None:
            on_gpu = next(model.parameters()).device.type == "cuda"
            workers = min(8, (os.cpu_count() or 1) - 1) if on_gpu else 0
        # pieces are as long as windows, so that the results of a piece do not depend on those before it
        with bar:
            results = infer(
                model,
                processor,
                rows(),
                task.step,
                on_error="skip",
                num_workers=workers,
                batch_tokens=options.batch_tokens,
                batch_size=options.batch_size,
                dtype=options.dtype,
                window=options.window,
            )
            for first in results:
                number, digest, table = waiting.popleft()
                found = [first, *islice(results, table.num_rows - 1)]
                failed = next((row for row, result in enumerate(found) if isinstance(result, MoleculeError)), None)
                if failed is not None and options.on_error == "raise":
                    error = found[failed]
                    reason = f"{error.reason} (row {number * options.window + failed + 1})"
                    raise MoleculeError(error.smiles, reason, error.notation)
                yield number, digest, _with_results(table, found, task, schema)
                advance(table.num_rows)

    def _write_part(self, number: int, digest: str, table: "pa.RecordBatch") -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = table.replace_schema_metadata({**table.schema.metadata, b"hf_molrep_digest": digest.encode()})
        path = self._part(number)
        unfinished = path.with_name(path.name + ".tmp")
        pq.write_table(pa.Table.from_batches([table]), unfinished)
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)

    def _join(self, schema: "pa.Schema") -> FileSummary:
        """Join the parts to one file, one at a time, and delete them."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        summary = FileSummary()
        with TableWriter(self.output, schema) as writer:
            for path in sorted(self.parts.glob("part-*.parquet")):
                # keeps memory constant: read_table would hold several parts
                with pq.ParquetFile(path, pre_buffer=False) as part:
                    for table in part.iter_batches(part.metadata.num_rows, use_threads=False):
                        writer.write(table.replace_schema_metadata(schema.metadata))
                        summary.add(table, self.reader.column)
                pa.default_memory_pool().release_unused()
        shutil.rmtree(self.parts)
        return summary


def _digest(piece: Piece) -> str:
    return hashlib.blake2b(repr(piece.table.to_pydict()).encode(), digest_size=16).hexdigest()


def _with_results(own: "pa.RecordBatch", results: Sequence, task: FileTask, schema: "pa.Schema") -> "pa.RecordBatch":
    import pyarrow as pa

    reports = [{"error": result.reason} if isinstance(result, MoleculeError) else result.report for result in results]
    outputs = [None if isinstance(result, MoleculeError) else result.output for result in results]
    names = schema.names[len(own.columns) : len(schema.names) - len(task.fields)]
    texts = [pa.array([report.get(name) for report in reports], pa.string()) for name in names]
    return pa.RecordBatch.from_arrays([*own.columns, *texts, *task.arrays(outputs)], schema=schema)


def checkpoint_digest(model: torch.nn.Module, processor: MoleculeProcessor) -> str:
    """Compute a digest of all weights, and of the files of the processor."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    with tempfile.TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def stack_results(results: Sequence[np.ndarray | None], width: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Stack the results of a [`FileTask`].

    Returns:
        float32 `[molecules, width]`, 0 for molecules that failed; bool `[molecules]`: which failed.
    """
    values = np.zeros((len(results), width), dtype=np.float32)
    failed = np.array([result is None for result in results])
    for row, result in enumerate(results):
        if result is not None:
            values[row] = result
    return values, failed


__all__ = ["FileOptions", "FileRun", "FileSummary", "FileTask", "checkpoint_digest", "stack_results"]
