"""Write tables with one row per molecule in pieces; `files.py` reads them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from .files import file_format

if TYPE_CHECKING:
    import pyarrow as pa


class TableWriter:
    """
    Writes rows to a Parquet, CSV or TSV file (the last two also gzipped, or "-" for standard output), in pieces.

    Until it is complete, the file is `path` + `.tmp`, which is removed if the `with` ends with an error. In CSV and TSV
    a missing value is an empty cell, and a list is JSON.

    Raises:
        ValueError: another format.
    """

    def __init__(self, path: str | os.PathLike, schema: pa.Schema, format: str | None = None):
        self.path, self.schema = str(path), schema
        self.format = file_format(self.path, format)
        if self.format not in ("csv", "tsv", "parquet"):
            raise ValueError(f"{self.path}: a table is written as .parquet, .csv or .tsv, not as {self.format.upper()}")
        if self.format == "parquet" and (self.path == "-" or self.path.endswith(".gz")):
            raise ValueError("Parquet is written to a file, and is compressed inside: no .gz, no standard output")
        self._unfinished = None if self.path == "-" else f"{self.path}.tmp"
        if self.format == "parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            # embeddings do not repeat: a dictionary of them would only take memory
            plain = [field.name for field in schema if not pa.types.is_nested(field.type)]
            self._parquet = pq.ParquetWriter(self._unfinished, schema, use_dictionary=plain)
            return
        self._streams: list[Any] = []
        if self._unfinished is None:
            text = sys.stdout
        else:
            raw = open(self._unfinished, "wb")  # noqa: SIM115 - closed in __exit__
            self._streams.append(raw)
            if self.path.endswith(".gz"):  # no name and time, so that the same rows give the same file
                raw = gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0)
                self._streams.append(raw)
            text = io.TextIOWrapper(raw, encoding="utf-8", newline="")
            self._streams.append(text)
        self._rows = csv.writer(text, delimiter="," if self.format == "csv" else "\t", lineterminator="\n")
        self._rows.writerow(schema.names)

    def write(self, table: pa.RecordBatch) -> None:
        """Add rows with the columns of the schema."""
        if self.format == "parquet":
            self._parquet.write_batch(table)
        else:
            self._rows.writerows(zip(*map(_cells, table.columns), strict=True))

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, failure: type | None, *_: object) -> None:
        if self.format == "parquet":
            self._parquet.close()
        else:
            for stream in reversed(self._streams):
                stream.close()
        if self._unfinished is None:
            sys.stdout.flush()
        elif failure is None:
            os.replace(self._unfinished, self.path)
        else:
            os.remove(self._unfinished)


def _cells(column: pa.Array) -> list[str]:
    import pyarrow as pa

    if pa.types.is_fixed_size_list(column.type) and pa.types.is_float32(column.type.value_type):
        # shortest decimals of the float32, not of its conversion to float64
        width, kept = column.type.list_size, column.is_valid().to_pylist()
        numbers = iter(column.flatten().to_numpy().reshape(-1, width).astype(str))
        return [f"[{', '.join(next(numbers))}]" if valid else "" for valid in kept]
    if pa.types.is_float32(column.type):
        kept = column.is_valid().to_pylist()
        numbers = column.fill_null(0).to_numpy(zero_copy_only=False).astype(str)
        return [str(number) if valid else "" for number, valid in zip(numbers, kept, strict=True)]
    return [_cell(value) for value in column.to_pylist()]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple, dict, np.ndarray)):
        return json.dumps(value, default=str)
    return str(value)
