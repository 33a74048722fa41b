"""Measures many kernels, from the table where it has them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import torch

from torch_eqsat.cost.kernel import Kernel, Measurement
from torch_eqsat.cost.measure import kernels as measuring
from torch_eqsat.cost.measure.pace import ATTEMPTS, SLOW, Pace, at_best
from torch_eqsat.cost.measure.telling import tell_once
from torch_eqsat.cost.measure.timer import Timer
from torch_eqsat.cost.roofline import cpu_roofline
from torch_eqsat.cost.table import Table
from torch_eqsat.errors import MeasurementError, first_line

logger = logging.getLogger(__name__)

BEST_PACE = "pace"
"""The table's coefficient that holds the least time of the yardstick, in ms."""


def measure_many(
    kernels: Iterable[Kernel],
    timer: Timer,
    table: Table,
    deadline: float | None = None,
    failed: dict[str, str] | None = None,
    pace: Pace | None = None,
) -> dict[str, float]:
    """Times in ms by ``kernel.key``: from the table where it has them, otherwise measured and stored.

    The kernels are measured in the given order until ``deadline`` (of ``time.monotonic()``, in s); what is left then,
    what could not be done by then, and what cannot run, is missing from the answer. ``failed`` gets, by key, what kept
    a kernel from being timed and may pass: a busy machine, or no memory. What was timed while the machine's ``pace``
    was slow is timed again after the others, up to :data:`ATTEMPTS` times in all; if it stays slow, the times are
    corrected.
    """
    failed = {} if failed is None else failed
    wanted = {kernel.key: kernel for kernel in kernels}
    found = {key: known.ms for key, known in table.lookup_many(wanted).items()}
    _agree_on_pace(table, pace)
    left, taken = [kernel for key, kernel in wanted.items() if key not in found], dict[str, Measurement]()
    for _ in range(ATTEMPTS if left else 0):
        for kernel, measured in _measured(left, timer, deadline, failed, pace):
            _agree_on_pace(table, pace)
            best = min(measured, taken.get(kernel.key, measured), key=lambda m: at_best(kernel, m).ms)
            taken[kernel.key] = best
            stored = at_best(kernel, best)
            table.store_many({kernel.key: stored})
            found[kernel.key] = stored.ms
        left = [kernel for kernel in left if kernel.key in taken and taken[kernel.key].slowness > SLOW]
    _tell_of_slow(taken)
    return {key: found[key] for key in wanted if key in found}


def _measured(
    kernels: Iterable[Kernel], timer: Timer, deadline: float | None, failed: dict[str, str], pace: Pace | None
) -> Iterator[tuple[Kernel, Measurement]]:
    """Those of ``kernels`` that can be measured now, with their times at the pace that the machine has."""
    for kernel in kernels:
        if not _in_time(kernel, deadline):
            continue
        measure = partial(measuring.measure, kernel, timer)
        try:
            with measuring.plain_torch(kernel.device):
                measured = measure() if pace is None else pace.beside(measure)
        except (MeasurementError, MemoryError, torch.OutOfMemoryError) as error:
            failed[kernel.key] = first_line(error)
            logger.debug("not measured: %s: %s", kernel.key, failed[kernel.key])
        except Exception as error:
            # RuntimeError, NotImplementedError …: no kernel may stop a compilation.
            tell_once(kernel.key, str(error).partition("\n")[0])
        else:
            failed.pop(kernel.key, None)
            yield kernel, measured


def _agree_on_pace(table: Table, pace: Pace | None) -> None:
    """Have ``pace`` and ``table`` know the same best pace. What the table holds from before, when the best that was
    known was slow, is forgotten."""
    if pace is None:
        return
    known = table.coefficients().get(BEST_PACE, math.inf)
    if pace.best_ms < known:
        if pace.best_ms < known / SLOW and known < math.inf:
            table.forget_kernels()
        table.store_coefficients({BEST_PACE: pace.best_ms}, 0.0, 1)
    else:
        pace.best_ms = known


def _tell_of_slow(taken: Mapping[str, Measurement]) -> None:
    slow = [measured.slowness for measured in taken.values() if measured.slowness > SLOW]
    if slow:
        logger.info("%d kernels were timed on a busy machine, up to %.1f times slower; corrected", len(slow), max(slow))


def _in_time(kernel: Kernel, deadline: float | None) -> bool:
    """Whether the warm-up and three runs, all at an optimistic speed, would be over by the deadline."""
    if deadline is None:
        return True
    bound_ms = cpu_roofline(torch.get_num_threads(), kernel.dtype).lower_estimate_ms(kernel)
    least_ms = 4 * bound_ms if kernel.device == "cpu" else 0.0
    return time.monotonic() + least_ms / 1e3 < deadline
