"""
Read files of molecules in pieces: CSV, TSV, SMI, SDF and Parquet, also gzipped, "-" for standard input.
`table_writer.py` writes them.

Other columns are not changed: text columns stay text ("007" stays "007", an empty cell stays empty), Parquet columns
keep their types. Pieces are `pyarrow.RecordBatch`; pyarrow is imported on use.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ..chem.sdf import field_name, read_sdf
from ..chem.smiles import MoleculeError

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".smi": "smi",
    ".smiles": "smi",
    ".sdf": "sdf",
    ".sd": "sdf",
    ".parquet": "parquet",
}
"""File endings, each of which may be followed by `.gz`."""

COLUMN_NAMES = {
    "smiles": ("smiles", "canonical_smiles", "isomeric_smiles", "smi", "molecule", "mol"),
    "iupac_name": ("iupac_name", "iupac", "pubchem_iupac_name", "name"),
}
"""Notations of molecules, and the column names searched for each, in this order and in any case, when none is given."""

KINDS = {"smiles": "smiles", "iupac": "iupac_name"}
"""Names of these notations in commands and pipelines."""

COORDINATE_COLUMNS = {"atomic_numbers": "z", "coordinates": "pos"}
"""Parquet columns with the coordinates of a molecule, and their names in processors: a list of atomic numbers and one
of coordinates in angstrom (flat; several conformers one after the other)."""

COORDINATES_HELP = (
    f"3D methods use the coordinates of an SDF, or those in the columns {' and '.join(COORDINATE_COLUMNS)} of a "
    "Parquet file, instead of computing conformers; columns conformer_status and conformer_flags say where they come "
    "from."
)
"""Help text of the commands on coordinates."""

_SMI_HEADERS = COLUMN_NAMES["smiles"]
_LONGEST_CELL = 100_000_000  # characters; csv's default limit, 131,072, would end reading at one very long SMILES


class Piece(NamedTuple):
    """
    Some rows of a file: a table of all columns, and for each row its molecule as a dict of the columns of a processor
    (`{"smiles": ...}`, `{"smiles": ..., "z": ..., "pos": ...}`), or why it could not be read.
    """

    table: pa.RecordBatch
    rows: list[dict[str, Any] | MoleculeError]


def molecule_column(kind: str) -> str:
    """
    Return the processors' column for a kind of text (`"smiles"`, `"iupac"`).

    Raises:
        ValueError: another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(map(repr, KINDS))}, not {kind!r}")
    return KINDS[kind]


def file_format(path: str, given: str | None = None) -> str:
    """
    Return "csv", "tsv", "smi", "sdf" or "parquet", from the ending of `path` unless `given`; "-" is CSV.

    Raises:
        ValueError: an unknown ending or format.
    """
    known = sorted(set(FORMATS.values()))
    if given is not None:
        if given not in known:
            raise ValueError(f"unknown format {given!r}; there are {', '.join(known)}")
        return given
    if path == "-":
        return "csv"
    suffix = Path(path.removesuffix(".gz")).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"{path}: unknown ending {suffix!r}; there are {', '.join(FORMATS)}, each also with .gz")
    return FORMATS[suffix]


def find_column(columns: list[str], column: str | None, given_as: str = "smiles", where: str = "the file") -> str:
    """
    Find the column with the molecules: `column`, or the only one with a known name.

    Raises:
        ValueError: there is none, or several fit; lists the columns.
    """
    present = ", ".join(map(repr, columns)) or "none"
    if column is not None:
        if column not in columns:
            raise ValueError(f"{where} has no column {column!r}; it has {present}")
        return column
    for name in COLUMN_NAMES[given_as]:
        found = [column for column in columns if column.strip().lower() == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"{where}: {' or '.join(map(repr, found))}? Name the column (--column)")
    what = "SMILES" if given_as == "smiles" else "IUPAC names"
    raise ValueError(
        f"{where} has no column that is known to hold {what} ({', '.join(COLUMN_NAMES[given_as])}); name one of these "
        f"(--column): {present}"
    )


class MoleculeReader:
    """
    A file of molecules, open for reading once, in pieces. Use it in a `with`.

    Args:
        path: the file, or "-" for standard input.
        column: with the molecules, of CSV, TSV and Parquet; found by its name if None (see [`find_column`]). Several: a
            row has several molecules, and its entry is a list.
        given_as: what the column holds, `"smiles"` or `"iupac_name"`.
        format: "csv", "tsv", "smi", "sdf", "parquet"; by default from the ending, and CSV for "-".
    Attributes:
        format, column, schema: the last is the `pyarrow.Schema` of the columns.
        more_columns: columns of the further molecules of a row.
        total: number of rows where it is known before reading, else None.
        given_as: as above.
        columns: columns that the rows of a piece can have: `given_as`, `z` and `pos` of a Parquet file with
            [`COORDINATE_COLUMNS`], `mol_block` (the record) of an SDF.

    SMI files have the columns `smiles` and `name` (the rest of the line); empty lines are no rows. SDF have `title`
    (`sdf_title` where a field is called `title`) and one text column per data field of any record, so they are read
    twice. Standard input is copied to a temporary file for SDF and Parquet.
    Raises:
        ValueError: an empty file, no such column, text that is not UTF-8, rows that do not fit the header.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        column: str | Sequence[str] | None = None,
        given_as: str = "smiles",
        format: str | None = None,
    ):
        column, *self.more_columns = [column] if column is None or isinstance(column, str) else column
        self.path = str(path)
        self.where = "standard input" if self.path == "-" else self.path
        self.format = file_format(self.path, format)
        self.total: int | None = None
        self.given_as = given_as
        self.columns = frozenset({given_as})
        self._close: list[Callable[[], Any]] = []
        try:
            self._raw = self._open()
            self._size = os.fstat(self._raw.fileno()).st_size if self.path != "-" else 0
            self.column, self.schema, self._pieces = getattr(self, f"_open_{self.format}")(column)
            for name in self.more_columns:
                find_column(self.schema.names, name, given_as, self.where)
                self.columns = frozenset({given_as})  # coordinates are those of one molecule
        except BaseException as error:
            self.close()
            raise self._readable_error(error) from None

    def __enter__(self) -> MoleculeReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        while self._close:
            self._close.pop()()

    def fraction(self) -> float | None:
        """Return how much of the file has been read, 0 to 1; None where its size is unknown."""
        return min(self._raw.tell() / self._size, 1.0) if self._size and not self._raw.closed else None

    def pieces(self, rows: int, columns: Collection[str] | None = None) -> Iterator[Piece]:
        """
        Yield all rows, `rows` at a time (the last piece may be smaller).

        Args:
            columns: which of `self.columns` each row shall have; by default `given_as`.
        """
        requested = frozenset({self.given_as} if columns is None else columns)
        if not requested <= self.columns:
            raise ValueError(f"{self.where} has no {' or '.join(sorted(requested - self.columns))}")
        try:
            yield from self._pieces(rows, requested)
        except (UnicodeDecodeError, EOFError, zlib.error) as error:
            raise self._readable_error(error) from None

    def _readable_error(self, error: BaseException) -> BaseException:
        if isinstance(error, UnicodeDecodeError):
            byte = error.object[error.start]
            return ValueError(f"{self.where} is not UTF-8 text (it has a byte 0x{byte:02x}); convert it first (iconv)")
        if isinstance(error, (EOFError, zlib.error)):
            return ValueError(f"{self.where}: the gzipped data are damaged or end too early")
        return error

    def _open(self) -> IO[bytes]:
        if self.path == "-":
            return sys.stdin.buffer
        raw = open(self.path, "rb", buffering=0)  # noqa: SIM115 - closed in close()
        self._close.append(raw.close)
        return raw

    def _bytes(self) -> IO[bytes]:
        """Return the content, unzipped if it is gzipped, whatever the ending."""
        source = self._raw
        if not hasattr(source, "peek"):
            source = io.BufferedReader(source)
            self._close.append(source.close)
        return gzip.GzipFile(fileobj=source) if source.peek(2)[:2] == b"\x1f\x8b" else source

    def _seekable(self) -> IO[bytes]:
        """Return the content as a file on disk: the file itself, or a temporary unzipped copy."""
        source = self._bytes()
        if self.path != "-" and not isinstance(source, gzip.GzipFile):
            return source
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._close.append(copy.close)
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.seek(0)
        return copy

    def _text(self, newline: str | None = None) -> io.TextIOWrapper:
        text = io.TextIOWrapper(self._bytes(), encoding="utf-8-sig", newline=newline)
        if self.path == "-":
            self._close.append(text.detach)  # standard input stays open for others
        else:
            self._close.append(text.close)
        return text

    # -- formats: each returns the column of the molecules, the schema, and a function that yields pieces

    def _open_tsv(self, column: str | None):
        return self._open_csv(column, delimiter="\t")

    def _open_csv(self, column: str | None, delimiter: str = ","):
        csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))
        lines = csv.reader(self._text(newline=""), delimiter=delimiter, strict=True)
        header = next(self._csv_rows(lines, None), None)
        if header is None:
            raise ValueError(f"{self.where} is empty: no header line")
        repeated = {name for name in header if header.count(name) > 1}
        if repeated:
            raise ValueError(f"{self.where}: several columns are called {', '.join(map(repr, sorted(repeated)))}")
        column = find_column(header, column, self.given_as, self.where)
        place = header.index(column)

        def pieces(rows: int, requested: frozenset[str]) -> Iterator[Piece]:
            content = self._csv_rows(lines, len(header))
            while chunk := list(islice(content, rows)):
                yield self._piece(_text_table(header, zip(*chunk, strict=True)), [row[place] for row in chunk])

        return column, _text_schema(header), pieces

    def _csv_rows(self, lines: Any, width: int | None) -> Iterator[list[str]]:
        while True:
            try:
                row = next(lines, None)
            except csv.Error as error:
                raise ValueError(f"{self.where}, line {lines.line_num}: {error}") from None
            if row is None:
                return
            if width is not None and row and len(row) != width:
                raise ValueError(f"{self.where}, line {lines.line_num}: {len(row)} cells, the header has {width}")
            if row:  # an empty line is no row
                yield row

    def _open_smi(self, column: str | None):
        columns = ["smiles", "name"]
        column = find_column(columns, column, self.given_as, self.where)
        place = columns.index(column)
        lines = (line.rstrip("\r\n") for line in self._text())
        lines = (line for line in lines if line.strip())
        first = next(lines, None)
        if first is None:
            raise ValueError(f"{self.where} is empty: no molecules")

        def content() -> Iterator[tuple[str, str]]:
            if first.split(None, 1)[0].lower() not in _SMI_HEADERS:
                yield _smi_row(first)
            yield from map(_smi_row, lines)

        def pieces(rows: int, requested: frozenset[str]) -> Iterator[Piece]:
            parsed = content()
            while chunk := list(islice(parsed, rows)):
                yield self._piece(_text_table(columns, zip(*chunk, strict=True)), [row[place] for row in chunk])

        return column, _text_schema(columns), pieces

    def _open_sdf(self, column: str | None):
        if self.path == "-":
            self._raw = self._seekable()
        fields: dict[str, None] = {}
        self.total, content = 0, False
        for line in self._text():
            if line.startswith("$$$$"):
                self.total += 1
                content = False
                continue
            content = content or bool(line.strip())
            name = field_name(line)
            if name is not None:
                fields[name] = None
        self.total += content
        if not self.total:
            raise ValueError(f"{self.where} is empty: no records")
        if self.path == "-":
            self._raw.seek(0)
        else:
            self._raw = self._open()
        title = "title" if "title" not in fields else "sdf_title"
        columns = [title, *fields]
        if self.given_as != "smiles" or column is not None:  # names, or SMILES, in a field
            column = find_column(columns, column, self.given_as, self.where)

        if column is None:
            self.columns |= {"mol_block"}

        def pieces(rows: int, requested: frozenset[str]) -> Iterator[Piece]:
            records = read_sdf(self._text())
            while chunk := list(islice(records, rows)):
                cells = [[record.title for record in chunk]]
                cells += [[record.properties.get(field) for record in chunk] for field in fields]
                table = _text_table(columns, cells)
                if requested == {"mol_block"}:
                    yield Piece(table, [{"mol_block": record.block} for record in chunk])
                elif column is None:
                    yield self._piece(table, [_smiles_or_error(record) for record in chunk])
                else:
                    yield self._piece(table, cells[columns.index(column)])

        return column, _text_schema(columns), pieces

    def _open_parquet(self, column: str | None):
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(self._seekable())
        except pa.ArrowInvalid as error:
            raise ValueError(f"{self.where} is not a Parquet file: {str(error).splitlines()[0]}") from None
        self._close.append(file.close)
        self.total, schema = file.metadata.num_rows, file.schema_arrow
        if self.given_as == "smiles" and set(COORDINATE_COLUMNS) <= set(schema.names):
            self.columns |= set(COORDINATE_COLUMNS.values())
        column = find_column(schema.names, column, self.given_as, self.where)

        def pieces(rows: int, requested: frozenset[str]) -> Iterator[Piece]:
            waiting: list[pa.RecordBatch] = []
            # batches end at row groups, pieces do not
            for batch in file.iter_batches(batch_size=rows):
                while batch.num_rows:
                    part = batch.slice(0, rows - sum(held.num_rows for held in waiting))
                    waiting.append(part)
                    batch = batch.slice(part.num_rows)
                    if sum(held.num_rows for held in waiting) == rows:
                        yield self._parquet_piece(waiting, column, requested)
                        waiting = []
            if waiting:
                yield self._parquet_piece(waiting, column, requested)

        return column, schema, pieces

    def _parquet_piece(self, batches: list[pa.RecordBatch], column: str, requested: frozenset[str]) -> Piece:
        import pyarrow as pa

        table = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
        piece = self._piece(table, table.column(column).to_pylist())
        for stored, name in COORDINATE_COLUMNS.items():
            if name in requested:
                for row, value in zip(piece.rows, table.column(stored).to_pylist(), strict=True):
                    row[name] = value
        return piece

    def _piece(self, table: pa.RecordBatch, molecules: Iterable[Any]) -> Piece:
        """Make the rows of a piece from the columns of molecules; errors stay in place."""
        if self.more_columns:
            more = [table.column(name).to_pylist() for name in self.more_columns]
            molecules = map(list, zip(molecules, *more, strict=True))
        rows = [
            molecule if isinstance(molecule, MoleculeError) else {self.given_as: molecule} for molecule in molecules
        ]
        return Piece(table, rows)


def _smi_row(line: str) -> tuple[str, str]:
    if line[0] == "\t":  # a name without a molecule
        return "", line.strip()
    smiles, *name = line.split(None, 1)
    return smiles, name[0].rstrip() if name else ""


def _smiles_or_error(record: Any) -> str | MoleculeError:
    try:
        return record.smiles()
    except MoleculeError as error:
        return error


def _text_schema(columns: list[str]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in columns])


def _text_table(columns: list[str], cells: Any) -> pa.RecordBatch:
    import pyarrow as pa

    arrays = [pa.array(column, type=pa.string()) for column in cells]
    return pa.RecordBatch.from_arrays(arrays, schema=_text_schema(columns))
