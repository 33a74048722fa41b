"""Plans and coefficients among what ``torch.compiler.save_cache_artifacts()`` saves, so that a machine that loads them
searches and calibrates nothing.

They travel as entries of Inductor's cache of compiled graphs, and lie in its folder once they are loaded. A type of
artifact of our own would have to be registered before loading, and where it is not torch loads nothing at all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from torch._inductor.codecache import FxGraphCache
from torch.compiler._cache import CacheArtifactManager

from torch_eqsat.cost.table import Context, Table

logger = logging.getLogger(__name__)

_TYPE = "inductor"


def offer(name: str, content: bytes) -> None:
    """Have ``content`` saved with torch's artifacts, under a ``name`` that no graph has; once for each content."""
    with suppress(Exception):  # another torch: then it is not saved
        CacheArtifactManager.record_artifact(_TYPE, name, content)


def offered(name: str, largest: int) -> Iterator[bytes]:
    """What was loaded under ``name``, of at most so many bytes."""
    try:
        folder = Path(FxGraphCache._get_tmp_dir_for_key(name))
        files = sorted(folder.iterdir()) if folder.is_dir() else []
    except Exception:
        return
    for file in files:
        with suppress(OSError):
            if file.stat().st_size <= largest:
                yield file.read_bytes()


def offer_coefficients(table: Table) -> None:
    """Have what calibration found for the context of ``table`` saved: plans depend on it."""
    if values := table.coefficients():
        offer(_name_of(table.context), json.dumps(values, sort_keys=True).encode())


def adopt_coefficients(table: Table) -> None:
    """Where ``table`` has no coefficients, take those that were loaded for its context."""
    if table.coefficients():
        return
    for content in offered(_name_of(table.context), largest=1 << 16):
        try:
            values = {str(name): float(value) for name, value in json.loads(content).items()}
        except (ValueError, TypeError, AttributeError) as error:
            logger.warning("loaded coefficients cannot be read: %s", error)
            continue
        if values and all(math.isfinite(value) and value >= 0 for value in values.values()):
            table.agree_on_coefficients(values, 0.0, 1)
            return


def plan_name(key: str) -> str:
    """The name of the plan with ``key``."""
    return f"eqsat_plan_{key}"


def _name_of(context: Context) -> str:
    return f"eqsat_coefficients_{hashlib.sha256(repr(context).encode()).hexdigest()}"
