"""The folder of both caches, kernel times and plans: where it lies, what is removed from it, its one line of trouble.

A cache must never stop the program it serves. Where the folder cannot be used (no home, a read-only or full disk), one
line in the log says so in each process, and everything is kept in memory.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

logger = logging.getLogger(__name__)

VARIABLE = "TORCH_EQSAT_CACHE_DIR"
DAY_S = 86_400.0
_TEMPORARY = re.compile(r".*\.tmp|tmp[^.]*")
_swept: set[str] = set()
_told: set[str] = set()


@dataclass(frozen=True)
class Keep:
    """What is kept in the folder."""

    plans: int = 2_000
    """Plans, those that were used last."""
    bytes: int = 256 * 2**20
    """Bytes of plans."""
    days: float = 90.0
    """Days after the last use of a plan, and after the making of a damaged table that was set aside as ``.bad-N``."""
    temporary_days: float = 1 / 24
    """Days for which a temporary file may still have a writer."""


def cache_folder() -> Path:
    """The user's cache folder, or the one that TORCH_EQSAT_CACHE_DIR names. Raises OSError where there is neither."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    try:
        folder = Path(platformdirs.user_cache_dir("torch_eqsat"))
        if not folder.is_absolute():  # "~" of a user without a home
            raise RuntimeError(f"{folder} is no folder")
    except (RuntimeError, KeyError) as error:
        raise NotADirectoryError(f"this user has no home folder; {VARIABLE} may name one for caches") from error
    return folder


def tell_trouble(error: Exception, folder: Path | None = None) -> None:
    """Say in one line, once in a process for each folder, that nothing can be kept on the disk."""
    try:
        where = str(folder or cache_folder())
    except OSError:
        where = "the cache folder"
    level = logging.DEBUG if where in _told else logging.WARNING
    _told.add(where)
    reason = str(error).partition("\n")[0]
    logger.log(level, "%s cannot be used (%s); kernel times and plans are kept in memory", where, reason)


def forget_trouble() -> None:
    """Say it again when it comes again, and look for what is old again: for tests."""
    _told.clear()
    _swept.clear()


def sweep(folder: Path, keep: Keep | None = None) -> None:
    """Remove what is old from ``folder``, at most once in a process. Nothing but our own files is looked at, for the
    folder may be that of others too."""
    if str(folder) in _swept:
        return
    _swept.add(str(folder))
    keep, now = keep or Keep(), time.time()
    for path in folder.glob("kernel-times-v*.sqlite.bad-*"):
        _remove_if(path, lambda status: now - status.st_mtime > keep.days * DAY_S)
    plans: list[tuple[float, int, Path]] = []
    for path in folder.glob("plans-v*/*"):
        if _TEMPORARY.fullmatch(path.name):
            _remove_if(path, lambda status: now - status.st_mtime > keep.temporary_days * DAY_S)
        elif path.suffix == ".json":
            with suppress(OSError):
                status = path.lstat()
                plans.append((status.st_mtime, status.st_size, path))
    total = 0
    for count, (used, size, path) in enumerate(sorted(plans, reverse=True)):
        total += size
        if count >= keep.plans or total > keep.bytes or now - used > keep.days * DAY_S:
            _remove_if(path, lambda status: True)


def _remove_if(path: Path, is_old: Callable[[os.stat_result], bool]) -> None:
    with suppress(OSError):  # another process was first
        if is_old(path.lstat()):
            path.unlink()
