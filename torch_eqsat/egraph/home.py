"""Lets a user without a home folder import egglog."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def some_home() -> Iterator[None]:
    """Meanwhile there is a place for caches, whoever the user is. egglog imports black, which asks for one as it is
    imported and raises RuntimeError where there is none: in a container whose user has no name, and no HOME."""
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
