"""Measures many kernels, from the table where it has them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from functools import partial

import torch

from torch_eqsat.cost.kernel import Kernel, Measurement
from torch_eqsat.cost.measure import kernels as measuring
from torch_eqsat.cost.measure.pace import ATTEMPTS, Pace
from torch_eqsat.cost.measure.telling import tell_once
from torch_eqsat.cost.measure.timer import Timer
from torch_eqsat.cost.roofline import cpu_roofline
from torch_eqsat.cost.table import Table
from torch_eqsat.errors import MeasurementError, first_line

logger = logging.getLogger(__name__)


def measure_many(
    kernels: Iterable[Kernel],
    timer: Timer,
    table: Table,
    deadline: float | None = None,
    *,
    failed: dict[str, str] | None = None,
    pace: Pace | None = None,
) -> dict[str, float]:
    """Times in ms by ``kernel.key``: from the table where it has them, otherwise measured and stored.

    The kernels are measured in the given order until ``deadline`` (of ``time.monotonic()``, in s); what is left then,
    what could not be done by then, and what cannot run, is missing from the answer. ``failed`` gets, by key, what kept
    a kernel from being timed and may pass: a busy machine, or no memory.

    With the machine's ``pace``, what was timed at a slow one is timed again after the others, up to
    :data:`~torch_eqsat.cost.measure.pace.ATTEMPTS` times in all, and the least counts. What was
    timed at a hopeless pace is not stored, and missing from the answer.
    """
    failed = {} if failed is None else failed
    wanted = {kernel.key: kernel for kernel in kernels}
    found = table.lookup_many(wanted)
    left = [kernel for key, kernel in wanted.items() if key not in found]
    for _ in range(ATTEMPTS):
        for kernel, measured in _measured(left, timer, deadline, failed, pace):
            known = found.get(kernel.key)
            found[kernel.key] = pace.better(known, measured) if pace and known else measured
            if not (pace and pace.is_hopeless(found[kernel.key])):  # others read the table without a pace
                table.store_many({kernel.key: found[kernel.key]})
        left = [wanted[key] for key, known in found.items() if pace and pace.is_slow(known)]
    for key in found:  # an attempt may have failed after one that did not
        failed.pop(key, None)
    hopeless = {k: pace.slowness(known) for k, known in found.items() if pace and pace.is_hopeless(known)}
    for key, slowness in hopeless.items():
        failed[key] = f"the machine is {slowness:.0f} times slower than at best"
        del found[key]
    if len(left) > len(hopeless):
        logger.info("%d kernels are known from a busy machine only", len(left) - len(hopeless))
    return {key: known.ms for key, known in found.items()}


def _measured(
    kernels: Iterable[Kernel],
    timer: Timer,
    deadline: float | None,
    failed: dict[str, str],
    pace: Pace | None,
) -> Iterator[tuple[Kernel, Measurement]]:
    """Those of ``kernels`` that can be measured now, with their times at the pace that the machine has."""
    for kernel in kernels:
        if not _in_time(kernel, deadline):
            continue
        measure = partial(measuring.measure, kernel, timer)
        try:
            measured = measure() if pace is None else pace.beside(measure)
        except (MeasurementError, MemoryError, torch.OutOfMemoryError) as error:
            failed[kernel.key] = first_line(error)
            logger.debug("not measured: %s: %s", kernel.key, failed[kernel.key])
        except Exception as error:
            # RuntimeError, NotImplementedError …: no kernel may stop a compilation.
            tell_once(kernel.key, str(error).partition("\n")[0])
        else:
            yield kernel, measured


def _in_time(kernel: Kernel, deadline: float | None) -> bool:
    """Whether the warm-up and three runs, all at an optimistic speed, would be over by the deadline."""
    if deadline is None:
        return True
    bound_ms = cpu_roofline(torch.get_num_threads(), kernel.dtype).lower_estimate_ms(kernel)
    least_ms = 4 * bound_ms if kernel.device == "cpu" else 0.0
    return time.monotonic() + least_ms / 1e3 < deadline
