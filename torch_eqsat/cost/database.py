"""The file of the table: opened, made, waited for while others lock it, and set aside when it is damaged."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from torch_eqsat.errors import EqsatError

logger = logging.getLogger(__name__)

SCHEMA = 3
"""Kept in ``user_version`` and in the file's name, so that versions that differ in it do not share a file. Times of 2
were taken at any pace of the machine."""

BUSY_S = 1.0
"""How long this process waits for other processes that lock the table, in all, in s."""

_PAUSE_S = 0.005
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
_waited_s = 0.0

_Result = TypeVar("_Result")

_CREATE = """
CREATE TABLE IF NOT EXISTS kernel (
    key TEXT NOT NULL,
    device TEXT NOT NULL, cpu TEXT NOT NULL, threads INTEGER NOT NULL, torch TEXT NOT NULL,
    ms REAL NOT NULL, spread REAL NOT NULL, repeats INTEGER NOT NULL,
    pace_ms REAL NOT NULL, -- of a yardstick beside it; 0 if unknown
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
COLUMNS = ["key", "device", "cpu", "threads", "torch", "ms", "spread", "repeats", "pace_ms", "measured_at"]


class ForeignFileError(EqsatError):
    """The file is a database, but not one of ours."""


def open_or_set_aside(path: str) -> sqlite3.Connection:
    """The database in a file, in a folder that is made; a damaged or foreign file is set aside, with a line in the log.
    Raises OSError and sqlite3.Error where none can be had."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    seen = inode_of(path)
    try:
        return patiently(partial(connect, path))
    except (sqlite3.DatabaseError, ForeignFileError) as error:
        if not is_bad_file(error):
            raise
        # Another process may have set it aside since, and made the good file that lies there now.
        if inode_of(path) == seen:
            set_aside(path, error)
        return patiently(partial(connect, path))


def set_aside(path: str, error: Exception) -> None:
    """Rename the file to a free ``.bad-<n>``, with its journals: SQLite would replay them into a new file."""
    number = 1
    while os.path.lexists(f"{path}.bad-{number}"):
        number += 1
    bad = f"{path}.bad-{number}"
    for suffix in ("", "-wal", "-shm", "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(path + suffix, bad + suffix)
    reason = str(error).partition("\n")[0]
    logger.warning("%s is no table of kernel times (%s); set aside as %s", path, reason, bad)


def forget_waiting() -> None:
    """Grant this process its time for waiting once more."""
    global _waited_s
    _waited_s = 0.0


def patiently(action: Callable[[], _Result]) -> _Result:
    """What ``action`` gives, which is repeated while another process locks the table and this one may still wait."""
    global _waited_s
    while True:
        try:
            return action()
        except UnicodeDecodeError as error:  # of SQLite's message about a damaged schema
            raise sqlite3.OperationalError(f"a text is damaged: {error}") from error
        except sqlite3.OperationalError as error:
            if _code(error) not in _BUSY or _waited_s >= BUSY_S:
                raise
        start = time.monotonic()
        time.sleep(_PAUSE_S)
        _waited_s += time.monotonic() - start


def inode_of(path: str) -> int | None:
    """What tells a file from another one that is put in its place; None for no file."""
    with contextlib.suppress(FileNotFoundError):
        return os.stat(path).st_ino
    return None


def is_bad_file(error: Exception) -> bool:
    """Whether the file itself is at fault, now and for ever. Python's own errors, about text, have no code."""
    undecodable = isinstance(error, sqlite3.OperationalError) and _code(error) == 0
    bad = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
    return isinstance(error, ForeignFileError) or undecodable or _code(error) in bad


def _code(error: Exception) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def connect(path: str) -> sqlite3.Connection:
    """A connection to a database that surely holds the table; leaves nothing open when it raises."""
    database = sqlite3.connect(path, timeout=0, check_same_thread=False)
    try:
        _prepare(database)
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection) -> None:
    # Times can be measured again: a crash of the whole system may cost the last ones.
    database.execute("PRAGMA synchronous = NORMAL")
    with database:  # at one moment: another process may be making it
        database.execute("BEGIN")
        columns = [row[1] for row in database.execute("PRAGMA table_info(kernel)")]
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if columns == COLUMNS and version == SCHEMA:
        return
    if tables or version:
        raise ForeignFileError(f"tables: {tables}, user_version: {version}")
    with database:
        # Two processes may both have found the file empty; the second waits here and finds the table made.
        database.execute("BEGIN IMMEDIATE")
        database.execute(_CREATE)
        database.execute(_CREATE_COEFFICIENTS)
        database.execute(f"PRAGMA user_version = {SCHEMA}")
    # The mode stays with the file. Where another process holds it just now, that process sets the mode.
    with contextlib.suppress(sqlite3.OperationalError):
        database.execute("PRAGMA journal_mode = WAL")
