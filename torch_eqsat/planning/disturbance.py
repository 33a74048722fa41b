"""Graphs that were decided while something failed that may pass: used, told about, and searched again next time."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from torch_eqsat.counters import count_transient
from torch_eqsat.errors import TransientError
from torch_eqsat.report import RegionReport

logger = logging.getLogger(__name__)


def note_disturbance(regions: Sequence[RegionReport], kernels_failed: Mapping[str, str], *, strict: bool) -> str:
    """Which temporary failures changed what was found, in one line; "" if all searches ended by themselves, so that the
    plan may be stored.

    A disturbance is counted and logged in one line. Raises TransientError with ``strict``.
    """
    what = _disturbance(regions, kernels_failed)
    if not what:
        return ""
    count_transient()
    if strict:
        raise TransientError(f"{what}; compile again when that is over")
    logger.warning("the search was disturbed; what it found is used this once, and not stored: %s", what)
    return what


def _disturbance(regions: Sequence[RegionReport], kernels_failed: Mapping[str, str]) -> str:
    stops = Counter(region.stop.partition("\n")[0] for region in regions if region.transient)
    parts = [f"{stop} (in {count} of {len(regions)} regions)" for stop, count in stops.items()]
    if kernels_failed:
        key, reason = next(iter(kernels_failed.items()))
        parts.append(f"{len(kernels_failed)} kernels could not be timed, the first {key} ({reason})")
    return "; ".join(parts)
