"""Measured times on disk, shared by all processes of a user: one SQLite table, keyed by kernel and context.

A cache must never stop the program it serves: whatever goes wrong is logged in one line, and the table goes on in
memory. Other processes that lock the table are waited for a second in all, and no longer.
"""

import contextlib
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass
from functools import cache, partial
from pathlib import Path
from types import TracebackType

from torch_eqsat.cost.database import (
    COLUMNS,
    SCHEMA,
    ForeignFileError,
    connect,
    forget_waiting,
    inode_of,
    is_bad_file,
    open_or_set_aside,
    patiently,
    set_aside,
)  # fmt: skip
from torch_eqsat.cost.folder import cache_folder, tell_trouble
from torch_eqsat.cost.kernel import Measurement

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
    """Where the table lies: in the user's cache folder, or in the folder that TORCH_EQSAT_CACHE_DIR names. Raises
    OSError where there is neither."""
    return cache_folder() / f"kernel-times-v{SCHEMA}.sqlite"


class Table:
    """The measured times of one context. Any number of processes and threads may use the same file.

    >>> context = Context("cpu", "some CPU", 1, "2.14.1")
    >>> with Table(context, ":memory:") as table:
    ...     table.store_many({"matmul …": Measurement(0.5, 0.01, 20)})
    ...     table.lookup_many(["matmul …", "another"])
    {'matmul …': Measurement(ms=0.5, spread=0.01, repeats=20, pace_ms=0.0)}
    """

    def __init__(self, context: Context, path: Path | str | None = None) -> None:
        self.context = context
        self.path = _place(path)
        self._lock = threading.RLock()
        self._database = self._open()
        self._file = inode_of(self.path)

    def lookup_many(self, keys: Iterable[str]) -> dict[str, Measurement]:
        """What the table knows of these kernels, by key."""
        wanted = list(keys)
        found: dict[str, Measurement] = {}
        with self._lock:
            try:
                for start in range(0, len(wanted), _STEP):
                    found |= patiently(partial(self._lookup, wanted[start : start + _STEP]))
            except sqlite3.Error as error:
                self._go_on_in_memory(error)
        return found

    def store_many(self, measurements: Mapping[str, Measurement]) -> None:
        """Store times by key, in place of those the table had, in one transaction."""
        now = time.time()
        rows = [(key, *astuple(self.context), *astuple(value), now) for key, value in measurements.items()]
        with self._lock:
            self._write(partial(self._store, rows))

    def paces_ms(self) -> list[float]:
        """The paces of the machine beside the measurements of this context, those that are known."""
        return [known.pace_ms for known in self.everything().values() if known.pace_ms > 0]

    def everything(self) -> dict[str, Measurement]:
        """All measurements of this context, by kernel key, sorted."""
        with self._lock:
            query = f"SELECT key, ms, spread, repeats, pace_ms FROM kernel WHERE {_IN_CONTEXT} ORDER BY key"
            try:
                rows = patiently(lambda: self._database.execute(query, astuple(self.context)).fetchall())
            except sqlite3.Error as error:
                self._go_on_in_memory(error)
                rows = []
        return _measurements(rows)

    def coefficients(self) -> dict[str, float]:
        """What calibration stored for this context, by name; empty where none was done."""
        with self._lock:
            try:
                query = f"SELECT name, value FROM coefficient WHERE {_IN_CONTEXT} ORDER BY name"
                rows = patiently(lambda: self._database.execute(query, astuple(self.context)).fetchall())
                return {name: value for name, value in rows if _is_number(value)}
            except sqlite3.Error as error:
                self._go_on_in_memory(error)
                return {}

    def store_coefficients(self, values: Mapping[str, float], spread: float, samples: int) -> None:
        """Store coefficients by name, fitted to so many times of at most this spread."""
        self._store_coefficients("REPLACE", values, spread, samples)

    def agree_on_coefficients(self, values: Mapping[str, float], spread: float, samples: int) -> None:
        """The same, but those that another process has stored first stay: processes that start together then go on with
        equal ones, which :meth:`coefficients` tells."""
        self._store_coefficients("IGNORE", values, spread, samples)

    def _store_coefficients(self, known: str, values: Mapping[str, float], spread: float, samples: int) -> None:
        now = time.time()
        rows = [(name, *astuple(self.context), value, spread, samples, now) for name, value in values.items()]

        def store() -> None:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany(f"INSERT OR {known} INTO coefficient VALUES (?,?,?,?,?,?,?,?,?)", rows)

        with self._lock:
            self._write(store)

    def _write(self, action: Callable[[], None]) -> None:
        try:
            patiently(action)
        except sqlite3.Error as error:
            self._go_on_in_memory(error)
            action()

    def close(self) -> None:
        """Close the file. It is safe to close twice."""
        with self._lock:
            self._database.close()

    @property
    def is_gone(self) -> bool:
        """Whether the file was removed, or another one lies in its place."""
        return self._file is not None and inode_of(self.path) != self._file

    def __enter__(self) -> "Table":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _lookup(self, keys: list[str]) -> dict[str, Measurement]:
        marks = ",".join("?" * len(keys))
        query = f"SELECT key, ms, spread, repeats, pace_ms FROM kernel WHERE {_IN_CONTEXT} AND key IN ({marks})"
        rows = self._database.execute(query, (*astuple(self.context), *keys))
        return _measurements(rows)

    def _store(self, rows: list[tuple[object, ...]]) -> None:
        marks = ",".join("?" * len(COLUMNS))
        with self._database:
            self._database.executemany(f"INSERT OR REPLACE INTO kernel VALUES ({marks})", rows)

    def _open(self) -> sqlite3.Connection:
        """Open the file; memory serves where none can be had."""
        if self.path == ":memory:":
            return connect(self.path)
        try:
            return open_or_set_aside(self.path)
        except (OSError, sqlite3.Error, ForeignFileError) as error:
            return self._memory(error)

    def _memory(self, error: Exception) -> sqlite3.Connection:
        tell_trouble(error, Path(self.path).parent)
        self.path, self._file = ":memory:", None
        return connect(":memory:")

    def _go_on_in_memory(self, error: sqlite3.Error) -> None:
        if isinstance(error, sqlite3.ProgrammingError):
            raise error  # a closed table, or a fault of this module: no damage that memory repairs
        self._database.close()
        if is_bad_file(error):  # so that the next process has a good one
            with contextlib.suppress(OSError):
                set_aside(self.path, error)
            self._database = connect(":memory:")
            self.path, self._file = ":memory:", None
        else:
            self._database = self._memory(error)


def _measurements(rows: Iterable[tuple[str, float, float, int, float]]) -> dict[str, Measurement]:
    """Rows as measurements by key, without those that damage made no time of: SQLite keeps any value in any column."""
    return {
        key: Measurement(ms, spread, repeats, pace_ms)
        for key, ms, spread, repeats, pace_ms in rows
        if _is_number(ms) and ms > 0 and _is_number(spread) and isinstance(repeats, int) and _is_number(pace_ms)
    }


def _is_number(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value) and value >= 0


_tables: dict[tuple[int, str, Context], Table] = {}
_replaced: list[tuple[int, Table]] = []


def open_table(context: Context, path: Path | str | None = None) -> Table:
    """The table of this process for a context and a file: opened once, and again after a fork (SQLite's connections
    must not be taken along) or when the file is gone. Not to be closed by who asks; :func:`close_tables` does that."""
    key = (os.getpid(), _place(path), context)
    table = _tables.get(key)
    if table is None or table.is_gone:
        if table is not None:  # who asked for it may still use it
            _replaced.append((key[0], table))
        table = _tables[key] = Table(context, key[1])
    return table


def close_tables() -> None:
    """Close what :func:`open_table` opened in this process, and forget how long locks were waited for: for a program
    that moves or removes its caches. ``torch.compiler.reset()`` calls it."""
    forget_waiting()
    for key in [key for key in _tables if key[0] == os.getpid()]:
        _tables.pop(key).close()
    for pair in [pair for pair in _replaced if pair[0] == os.getpid()]:
        _replaced.remove(pair)
        pair[1].close()


def _place(path: Path | str | None) -> str:
    """The file of a table as text; ":memory:" where no folder can be had."""
    if path is not None:
        return str(path)
    try:
        return str(default_path())
    except OSError as error:
        tell_trouble(error)
        return ":memory:"
