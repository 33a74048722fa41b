"""Measured times on disk, shared by all processes of a user: one SQLite table, keyed by kernel and context.

A cache must never stop the program it serves: whatever goes wrong is logged in one line, and the table goes on in
memory.
"""

import contextlib
import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from types import TracebackType

import platformdirs

from torch_eqsat.cost.kernel import Measurement

logger = logging.getLogger("torch_eqsat.cost")

SCHEMA = 2
"""Kept in ``user_version`` and in the file's name, so that versions that differ in it do not share a file."""

BUSY_S = 10.0
"""How long a writer waits for another process, in s."""

_CREATE = """
CREATE TABLE IF NOT EXISTS kernel (
    key TEXT NOT NULL,
    device TEXT NOT NULL, cpu TEXT NOT NULL, threads INTEGER NOT NULL, torch TEXT NOT NULL,
    ms REAL NOT NULL, spread REAL NOT NULL, repeats INTEGER NOT NULL,
    measured_at REAL NOT NULL, -- seconds since the epoch
    PRIMARY KEY (device, cpu, threads, torch, key)
) WITHOUT ROWID
"""
_CREATE_COEFFICIENTS = """
CREATE TABLE IF NOT EXISTS coefficient (
    name TEXT NOT NULL,
    device TEXT NOT NULL, cpu TEXT NOT NULL, threads INTEGER NOT NULL, torch TEXT NOT NULL,
    value REAL NOT NULL,
    spread REAL NOT NULL, samples INTEGER NOT NULL, -- of the times that it was fitted to
    measured_at REAL NOT NULL, -- seconds since the epoch
    PRIMARY KEY (device, cpu, threads, torch, name)
) WITHOUT ROWID
"""
_COLUMNS = ["key", "device", "cpu", "threads", "torch", "ms", "spread", "repeats", "measured_at"]
_IN_CONTEXT = "device = ? AND cpu = ? AND threads = ? AND torch = ?"

# SQLite allows 32766 parameters in a statement; smaller steps cost nothing.
_STEP = 500


@dataclass(frozen=True)
class Context:
    """What a time depends on besides its kernel: device, CPU model, torch's threads and version."""

    device: str
    cpu: str
    threads: int
    torch: str


@cache
def cpu_model() -> str:
    """The name of the CPU, as the system gives it; "unknown" where it gives none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def default_path() -> Path:
    """Where the table lies: in the user's cache folder, or in the folder that TORCH_EQSAT_CACHE_DIR names."""
    folder = os.environ.get("TORCH_EQSAT_CACHE_DIR") or platformdirs.user_cache_dir("torch_eqsat")
    return Path(folder) / f"kernel-times-v{SCHEMA}.sqlite"


class _ForeignFileError(Exception):
    """The file is a database, but not one of ours."""


class Table:
    """The measured times of one context. Any number of processes and threads may use the same file.

    >>> context = Context("cpu", "some CPU", 1, "2.14.1")
    >>> with Table(context, ":memory:") as table:
    ...     table.store_many({"matmul …": Measurement(0.5, 0.01, 20)})
    ...     table.lookup_many(["matmul …", "another"])
    {'matmul …': Measurement(ms=0.5, spread=0.01, repeats=20)}
    """

    def __init__(self, context: Context, path: Path | str | None = None) -> None:
        self.context = context
        self.path = str(path if path is not None else default_path())
        self._lock = threading.RLock()
        self._database = self._open()

    def lookup_many(self, keys: Iterable[str]) -> dict[str, Measurement]:
        """What the table knows of these kernels, by key."""
        wanted = list(keys)
        found: dict[str, Measurement] = {}
        with self._lock:
            try:
                for start in range(0, len(wanted), _STEP):
                    found |= self._lookup(wanted[start : start + _STEP])
            except sqlite3.Error as error:
                self._go_on_in_memory(error)
        return found

    def store_many(self, measurements: Mapping[str, Measurement]) -> None:
        """Store times by key, in place of those the table had, in one transaction."""
        now = time.time()
        rows = [(key, *astuple(self.context), *astuple(value), now) for key, value in measurements.items()]
        with self._lock:
            try:
                self._store(rows)
            except sqlite3.Error as error:
                self._go_on_in_memory(error)
                self._store(rows)

    def fingerprint(self, keys: Iterable[str] = ()) -> str:
        """A hexadecimal digest of the context, the schema, and the stored times (ms) of ``keys``.

        Without keys it does not change when kernels are measured: a program that starts a second time, with the
        table filled, sees the same one.
        """
        known = self.lookup_many(keys)
        content = (SCHEMA, astuple(self.context), sorted((key, value.ms) for key, value in known.items()))
        return hashlib.sha256(repr(content).encode()).hexdigest()

    def everything(self) -> dict[str, Measurement]:
        """All measurements of this context, by kernel key, sorted."""
        with self._lock:
            query = f"SELECT key, ms, spread, repeats FROM kernel WHERE {_IN_CONTEXT} ORDER BY key"
            rows = self._database.execute(query, astuple(self.context)).fetchall()
        return {key: Measurement(ms, spread, repeats) for key, ms, spread, repeats in rows}

    def coefficients(self) -> dict[str, float]:
        """What calibration stored for this context, by name; empty where none was done."""
        with self._lock:
            try:
                query = f"SELECT name, value FROM coefficient WHERE {_IN_CONTEXT} ORDER BY name"
                return dict(self._database.execute(query, astuple(self.context)).fetchall())
            except sqlite3.Error as error:
                self._go_on_in_memory(error)
                return {}

    def store_coefficients(self, values: Mapping[str, float], spread: float, samples: int) -> None:
        """Store coefficients by name, fitted to so many times of at most this spread."""
        now = time.time()
        rows = [(name, *astuple(self.context), value, spread, samples, now) for name, value in values.items()]
        with self._lock:
            try:
                self._store_coefficients(rows)
            except sqlite3.Error as error:
                self._go_on_in_memory(error)
                self._store_coefficients(rows)

    def _store_coefficients(self, rows: list[tuple[object, ...]]) -> None:
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO coefficient VALUES (?,?,?,?,?,?,?,?,?)", rows)

    def close(self) -> None:
        """Close the file. It is safe to close twice."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> "Table":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _lookup(self, keys: list[str]) -> dict[str, Measurement]:
        marks = ",".join("?" * len(keys))
        query = f"SELECT key, ms, spread, repeats FROM kernel WHERE {_IN_CONTEXT} AND key IN ({marks})"
        rows = self._database.execute(query, (*astuple(self.context), *keys))
        return {key: Measurement(ms, spread, repeats) for key, ms, spread, repeats in rows}

    def _store(self, rows: list[tuple[object, ...]]) -> None:
        marks = ",".join("?" * len(_COLUMNS))
        with self._database:
            self._database.executemany(f"INSERT OR REPLACE INTO kernel VALUES ({marks})", rows)

    def _open(self) -> sqlite3.Connection:
        """Open the file; a damaged or foreign one is set aside, and memory serves where no file can be had."""
        if self.path == ":memory:":
            return _connect(self.path)
        try:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            seen = _inode(self.path)
            try:
                return _connect(self.path)
            except (sqlite3.DatabaseError, _ForeignFileError) as error:
                if not _is_bad_file(error):
                    raise
                # Another process may have set it aside since, and made the good file that lies there now.
                if _inode(self.path) == seen:
                    self._set_aside(error)
                return _connect(self.path)
        except (OSError, sqlite3.Error, _ForeignFileError) as error:
            return self._memory(error)

    def _set_aside(self, error: Exception) -> None:
        """Rename the file to a free ``.bad-<n>``, with its journals: SQLite would replay them into a new file."""
        number = 1
        while os.path.lexists(f"{self.path}.bad-{number}"):
            number += 1
        bad = f"{self.path}.bad-{number}"
        for suffix in ("", "-wal", "-shm", "-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.path + suffix, bad + suffix)
        logger.warning("%s is no table of kernel times (%s); set aside as %s", self.path, error, bad)

    def _memory(self, error: Exception) -> sqlite3.Connection:
        logger.warning("%s cannot be used (%s); kernel times are kept in memory", self.path, error)
        return _connect(":memory:")

    def _go_on_in_memory(self, error: sqlite3.Error) -> None:
        if isinstance(error, sqlite3.ProgrammingError):
            raise error  # a closed table, or a fault of this module: no damage that memory repairs
        self._database.close()
        self._database = self._memory(error)


def _inode(path: str) -> int | None:
    with contextlib.suppress(FileNotFoundError):
        return os.stat(path).st_ino
    return None


def _is_bad_file(error: Exception) -> bool:
    bad = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
    return isinstance(error, _ForeignFileError) or getattr(error, "sqlite_errorcode", None) in bad


def _connect(path: str) -> sqlite3.Connection:
    """A connection to a database that surely holds the table; leaves nothing open when it raises."""
    database = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False)
    try:
        _prepare(database)
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection) -> None:
    # Times can be measured again: a crash of the whole system may cost the last ones.
    database.execute("PRAGMA synchronous = NORMAL")
    columns = [row[1] for row in database.execute("PRAGMA table_info(kernel)")]
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if columns == _COLUMNS and version == SCHEMA:
        return
    (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables or version:
        raise _ForeignFileError(f"tables: {tables}, user_version: {version}")
    with database:
        # Two processes may both have found the file empty; the second waits here and finds the table made.
        database.execute("BEGIN IMMEDIATE")
        database.execute(_CREATE)
        database.execute(_CREATE_COEFFICIENTS)
        database.execute(f"PRAGMA user_version = {SCHEMA}")
    # The mode stays with the file. Where another process holds it just now, that process sets the mode.
    with contextlib.suppress(sqlite3.OperationalError):
        database.execute("PRAGMA journal_mode = WAL")
