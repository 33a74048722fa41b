"""Graphs that were decided while something failed that may pass: used, told about, and searched again next time."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch_eqsat.counters import count_transient
from torch_eqsat.errors import TransientError
from torch_eqsat.report import GraphReport

logger = logging.getLogger("torch_eqsat")


def note_disturbance(regions: Sequence[Mapping[str, Any]], report: GraphReport, *, strict: bool) -> bool:
    """Whether the search that gave these rows of a plan ended by itself, so that the plan may be stored.

    Otherwise it is counted, noted in ``report`` and logged in one line. Raises TransientError with ``strict``.
    """
    report.disturbed = what = _disturbance(regions, report.kernels_failed)
    if not what:
        return True
    count_transient()
    if strict:
        raise TransientError(f"{what}; compile again when that is over")
    logger.warning("the search was disturbed; what it found is used this once, and not stored: %s", what)
    return False


def _disturbance(regions: Sequence[Mapping[str, Any]], kernels_failed: Mapping[str, str]) -> str:
    """What may pass and changed what was found, in one line; "" for nothing."""
    stops = Counter(str(region["stop"]).partition("\n")[0] for region in regions if region["transient"])
    parts = [f"{stop} (in {count} of {len(regions)} regions)" for stop, count in stops.items()]
    if kernels_failed:
        key, reason = next(iter(kernels_failed.items()))
        parts.append(f"{len(kernels_failed)} kernels could not be timed, the first {key} ({reason})")
    return "; ".join(parts)
