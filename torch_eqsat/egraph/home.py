"""Allows a user without a home folder to import egglog."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def some_home() -> Iterator[None]:
    """A context in which a cache folder exists for every user. egglog imports black, which looks for one at import and
    raises RuntimeError without it, as in a container whose user has no name and no HOME."""
    try:
        Path.home()
    except RuntimeError:
        before = os.environ.get("XDG_CACHE_HOME")
        os.environ["XDG_CACHE_HOME"] = before or tempfile.gettempdir()
        try:
            yield
        finally:
            if before is None:
                del os.environ["XDG_CACHE_HOME"]
            else:
                os.environ["XDG_CACHE_HOME"] = before
    else:
        yield
