"""What the package is, as part of the keys of caches."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

from torch_eqsat import rewrites
from torch_eqsat._version import __version__


@cache
def source_hash() -> str:
    """A hash of all that the package does: its source, and the version of egglog."""
    digest = hashlib.sha256(f"{__version__} {metadata.version('egglog')}".encode())
    for folder in (Path(__file__).parents[2], Path(str(rewrites.__file__)).parent):
        for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.cpp")]):
            digest.update(path.read_bytes())
    return digest.hexdigest()
