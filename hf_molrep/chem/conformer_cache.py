"""
Conformers on disk: one SQLite file that all methods and all processes share.

The key of a row is the canonical SMILES (with stereo and isotopes) of the embedded molecule and the text of all else
that its coordinates depend on: settings, version of RDKit, version of the recipe. SQLite locks between processes, and
a process that is killed while it writes leaves the file intact (write-ahead log). It does not detect a flipped bit
within a row, hence a checksum on each.

On file systems without working locks (some network mounts) SQLite is not safe; keep the file on a local disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
import warnings
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

SCHEMA = 1  # PRAGMA user_version of the file
_TABLES = (
    "CREATE TABLE IF NOT EXISTS settings (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)",
    # crc32: of all that follows; z uint8, pos and energies little-endian float32 and float64
    """CREATE TABLE IF NOT EXISTS conformers (
        settings INTEGER NOT NULL, smiles TEXT NOT NULL, crc32 INTEGER NOT NULL, flags TEXT NOT NULL,
        reason TEXT NOT NULL, spent REAL NOT NULL, z BLOB NOT NULL, pos BLOB NOT NULL, energies BLOB NOT NULL,
        PRIMARY KEY (settings, smiles))""",
)
_COLUMNS = "smiles, crc32, flags, reason, spent, z, pos, energies"
_MAX_VARIABLES = 500  # of one query; SQLite allows 999 in old versions
_LOCK_TIMEOUT = 60.0  # seconds to wait for the lock of another process


class Record(NamedTuple):
    """
    What was computed for one molecule, atoms in the order of its canonical SMILES, then the implied hydrogens.

    Attributes:
        z: uint8 `[atoms]`.
        pos: float32 `[conformers, atoms, 3]`, angstrom; no conformers if the computation failed.
        energies: float64 `[conformers]`, kcal/mol, or empty.
        flags: see [`~hf_molrep.chem.conformers.FLAGS`].
        reason: why it failed, or "".
        spent: the time limit that it exceeded, in seconds, or 0.
    """

    z: np.ndarray
    pos: np.ndarray
    energies: np.ndarray
    flags: tuple[str, ...] = ()
    reason: str = ""
    spent: float = 0.0


def default_path() -> Path:
    """`$HF_MOLREP_CACHE/conformers.sqlite`, else `hf_molrep/conformers.sqlite` in Hugging Face's cache folder."""
    folder = os.environ.get("HF_MOLREP_CACHE")
    if folder:
        return Path(folder).expanduser() / "conformers.sqlite"
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hf_molrep" / "conformers.sqlite"


def _to_row(record: Record) -> tuple:
    parts = (
        json.dumps(list(record.flags)),
        record.reason,
        float(record.spent),
        np.ascontiguousarray(record.z, dtype=np.uint8).tobytes(),
        np.ascontiguousarray(record.pos, dtype="<f4").tobytes(),
        np.ascontiguousarray(record.energies, dtype="<f8").tobytes(),
    )
    return (_checksum(parts), *parts)


def _checksum(parts: Sequence) -> int:
    flags, reason, spent, *blobs = parts
    value = zlib.crc32(f"{flags}\n{reason}\n{spent!r}".encode())
    for blob in blobs:
        value = zlib.crc32(blob, value)
    return value


def _from_row(crc32: int, *parts) -> Record | None:
    """Decode a row; None if it does not match its checksum."""
    try:
        if _checksum(parts) != crc32:
            return None
        flags, reason, spent, z, pos, energies = parts
        atoms, conformers = len(z), len(pos) // (12 * len(z)) if z else 0
        return Record(
            np.frombuffer(z, dtype=np.uint8),
            np.frombuffer(pos, dtype="<f4").reshape(conformers, atoms, 3),
            np.frombuffer(energies, dtype="<f8"),
            tuple(json.loads(flags)),
            reason,
            spent,
        )
    except (TypeError, ValueError):
        return None


class ConformerCache:
    """
    The cache file, opened on first use; threads and processes may share it.

    A file that SQLite cannot read is renamed to `<name>.damaged-<time>` with a warning, and a new one created. A file
    without write permission is only read. Rows that fail their checksum count as missing and are written again.

    Args:
        path: the file; its folder is created.
    Raises:
        ValueError: the file is another database, or of another version.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._owner = 0
        self._ids: dict[str, int] = {}
        self._read_only = False

    def __getstate__(self) -> dict:
        return {"path": self.path}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["path"])

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._owner == os.getpid():
            return self._connection
        if self._connection is not None:  # forked: the parent's connection must be neither used nor closed here
            _abandoned.append(self._connection)
            self._connection = None
        try:
            self._connection = self._connect()
        except sqlite3.OperationalError:
            raise  # locked, or the disk is full: not the file's fault
        except sqlite3.DatabaseError as error:
            self._move_damaged(error)
            self._connection = self._connect()
        self._owner = os.getpid()
        self._ids = {}
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        self._read_only = self.path.exists() and not os.access(self.path, os.W_OK)
        if self._read_only:
            uri = f"{self.path.resolve().as_uri()}?mode=ro&immutable=1"
            connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        else:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OSError(
                    f"cannot create the folder of the conformer cache {self.path} (see HF_MOLREP_CACHE): {error}"
                ) from error
            connection = sqlite3.connect(
                self.path, timeout=_LOCK_TIMEOUT, isolation_level=None, check_same_thread=False
            )
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if version not in (0, SCHEMA) or (tables and not {"settings", "conformers"} & tables):
                raise ValueError(f"{self.path} is not a conformer cache of version {SCHEMA}; choose another file")
            if not self._read_only and version != SCHEMA:
                self._write_ahead(connection)
                connection.execute("BEGIN IMMEDIATE")
                for statement in _TABLES:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA}")
                connection.execute("COMMIT")
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def _write_ahead(connection: sqlite3.Connection) -> None:
        """Switch to the write-ahead log. SQLite does not wait for other processes that switch, so retry."""
        end = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def _move_damaged(self, error: sqlite3.DatabaseError) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if not os.access(self.path, os.W_OK):
            raise error
        backup = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            self.path.rename(backup)
        for ending in ("-wal", "-shm"):
            Path(f"{self.path}{ending}").unlink(missing_ok=True)
        warnings.warn(
            f"the conformer cache {self.path} is damaged ({error}): renamed to {backup.name}, a new one is created",
            stacklevel=2,
        )

    def _settings_id(self, connection: sqlite3.Connection, settings: str, write: bool) -> int | None:
        settings_id = self._ids.get(settings)
        if settings_id is None:
            if write:
                connection.execute("INSERT OR IGNORE INTO settings (text) VALUES (?)", (settings,))
            row = connection.execute("SELECT id FROM settings WHERE text = ?", (settings,)).fetchone()
            if row is None:
                return None
            settings_id = row[0]
            if not write:  # a transaction may still be rolled back
                self._ids[settings] = settings_id
        return settings_id

    def _retry(self, action):
        """Run `action`; if the file turns out to be damaged, run it again on a new one."""
        with self._lock:
            try:
                return action(self._open())
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self._move_damaged(error)
                return action(self._open())

    def get(self, settings: str, smiles: Sequence[str]) -> dict[str, Record]:
        """Look up molecules by canonical SMILES; unknown ones are left out. The arrays are read-only."""

        def look_up(connection: sqlite3.Connection) -> dict[str, Record]:
            found: dict[str, Record] = {}
            settings_id = self._settings_id(connection, settings, write=False)
            if settings_id is None:
                return found
            for start in range(0, len(smiles), _MAX_VARIABLES):
                chunk = smiles[start : start + _MAX_VARIABLES]
                marks = ",".join("?" * len(chunk))
                query = f"SELECT {_COLUMNS} FROM conformers WHERE settings = ? AND smiles IN ({marks})"
                for text, *rest in connection.execute(query, (settings_id, *chunk)):
                    record = _from_row(*rest)
                    if record is not None:
                        found[text] = record
            return found

        return self._retry(look_up)

    def put(self, settings: str, records: Iterable[tuple[str, Record]]) -> None:
        """Store records in one transaction; rows of the same molecule and settings are overwritten."""
        rows = [(text, *_to_row(record)) for text, record in records]

        def write(connection: sqlite3.Connection) -> None:
            if self._read_only:
                return
            connection.execute("BEGIN IMMEDIATE")
            try:
                settings_id = self._settings_id(connection, settings, write=True)
                connection.executemany(
                    f"INSERT OR REPLACE INTO conformers (settings, {_COLUMNS}) VALUES (?, {', '.join('?' * 8)})",
                    [(settings_id, *row) for row in rows],
                )
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

        if rows:
            self._retry(write)

    def __len__(self) -> int:
        """Number of rows, over all settings."""
        return self._retry(lambda connection: connection.execute("SELECT count(*) FROM conformers").fetchone()[0])

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        with self._lock:
            if self._connection is not None and self._owner == os.getpid():
                self._connection.close()
                self._connection = None

    def __del__(self) -> None:
        try:  # noqa: SIM105 - when the interpreter ends, modules such as contextlib may be gone
            self.close()
        except Exception:
            pass


_abandoned: list[sqlite3.Connection] = []  # connections of a parent process
