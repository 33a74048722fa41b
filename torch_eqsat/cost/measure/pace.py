"""How fast this machine computes at the moment, beside its best.

On a core that is shared with another thread (two virtual processors are often one core), and in a machine that is
shared with others, arithmetic takes up to 1.4 times as long, for some tenths of a second or for hours. No clock tells:
CPU time passes while the core computes for others. On an Intel Xeon a convolution got 0.85 ms in place of 0.43 from
such a moment, and mobilenet_v2 a program that is 4 % slower than the original.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from torch_eqsat.cost.kernel import Kernel, Measurement
from torch_eqsat.cost.measure.timer import Call, Clock, sample_ms
from torch_eqsat.cost.roofline import cpu_roofline

SIDE = 256
"""Of the matrices of the yardstick: 0.2 ms of arithmetic that stays in the L2 cache."""

SAMPLES = 3

SLOW = 1.15
"""Times that were taken at a slower pace are taken again: a quiet machine's vary by 5 %."""

ATTEMPTS = 3


class Pace:
    """The machine's pace: the time of a product of two matrices, in ms, with torch's threads. ``best_ms`` is the least
    that is known."""

    def __init__(self, clock: Clock | None = None, work: Call | None = None) -> None:
        self.best_ms = math.inf
        self._clock = clock or (time.thread_time if torch.get_num_threads() == 1 else time.perf_counter)
        self._work = work

    def beside(self, measure: Callable[[], Measurement]) -> Measurement:
        """What ``measure`` gives, and how much slower than at best the machine was before and after it."""
        before = self._now_ms()
        measured = measure()
        now = min(before, self._now_ms())
        return replace(measured, slowness=now / self.best_ms)

    def steadily(self, measure: Callable[[], Measurement]) -> Measurement:
        """The least of up to :data:`ATTEMPTS` times, of which the last was taken at a good pace, if one was."""
        attempts = [self.beside(measure)]
        while attempts[-1].slowness > SLOW and len(attempts) < ATTEMPTS:
            attempts.append(self.beside(measure))
        return min(attempts, key=lambda measured: measured.ms)

    def _now_ms(self) -> float:
        if self._work is None:
            self._work = _yardstick()
        now = min(sample_ms([self._work], 1, self._clock) for _ in range(SAMPLES))
        self.best_ms = min(self.best_ms, now)
        return now


def at_best(kernel: Kernel, measured: Measurement) -> Measurement:
    """The time that ``kernel`` would take at the machine's best pace. Waiting for memory takes as long at any: only the
    share of arithmetic is shortened, as a roofline has it.

    >>> product = Kernel.matmul((512, 512), (512, 512))
    >>> at_best(product, Measurement(1.4, 0.0, 9, slowness=1.4))
    Measurement(ms=1.0198859870078218, spread=0.0, repeats=9, slowness=1.0)
    """
    roofline = cpu_roofline(torch.get_num_threads(), kernel.dtype)
    arithmetic, memory = kernel.flops / roofline.peak_flops_per_ms, kernel.bytes / roofline.bytes_per_ms
    share = arithmetic / (arithmetic + memory)
    return replace(measured, ms=measured.ms / (1 + (measured.slowness - 1) * share), slowness=1.0)


def _yardstick() -> Call:
    a, b = torch.ones(SIDE, SIDE), torch.ones(SIDE, SIDE)
    return lambda: torch.mm(a, b)
