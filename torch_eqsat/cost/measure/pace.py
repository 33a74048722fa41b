"""How fast this machine computes at the moment, beside its best.

On a core that is shared with another thread (two virtual processors are often one core), and in a machine that is
shared with others, arithmetic takes up to 1.4 times as long, for some tenths of a second or for hours. No clock tells:
CPU time passes while the core computes for others. On an Intel Xeon a convolution got 0.85 ms in place of 0.43 from
such a moment, and mobilenet_v2 a program that is 4 % slower than the original.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from torch_eqsat.cost.kernel import Measurement
from torch_eqsat.cost.measure.kernels import plain_torch
from torch_eqsat.cost.measure.timer import Call, Clock, Timer, sample_ms

SIDE = 192
"""Of the matrices of the yardstick, with one thread: 0.2 ms of arithmetic that stays in the L2 cache."""

SAMPLES = 3

PATIENCE = 30
"""Before a pace is hopeless, so many more samples are taken: a measurement is longer, and may find a quiet moment."""

RARELY_QUIET = 2.0
"""The pace, relative to the best, of a machine that was quiet in one of those alone: times are taken again, and
kept."""

SLOW = 1.15
"""Times that were taken at a slower pace are taken again: a quiet machine's vary by 5 %."""

HOPELESS = 2.5
"""Times that were taken at a slower pace than this mean nothing. Where two threads had one core between them, a product
of 0.01 ms took 7 ms, and the yardstick 37 times its best."""

ATTEMPTS = 3

RARE = 20
"""One in so many of the yardstick's times may be less than the best pace: a clock may err."""


class Pace:
    """The machine's pace: the time of a product of two matrices, in ms, with torch's threads. ``known_ms`` are paces
    that were seen before."""

    def __init__(self, known_ms: Sequence[float] = (), clock: Clock | None = None, work: Call | None = None) -> None:
        self._known_ms = _best(known_ms)
        self._clock = clock or (time.thread_time if torch.get_num_threads() == 1 else time.perf_counter)
        self._work = work
        self._seen: list[float] = []

    @property
    def best_ms(self) -> float:
        """The best pace that is known, in ms."""
        return min(self._known_ms, _best(self._seen))

    def beside(self, measure: Callable[[], Measurement]) -> Measurement:
        """What ``measure`` gives, with the pace that the machine had before or after it, the better one."""
        before = self._now_ms()
        measured = measure()
        return replace(measured, pace_ms=min(before, self._now_ms()))

    def slowness(self, measured: Measurement) -> float:
        """How many times slower than at best the machine was then; 1 if it is not known."""
        return max(1.0, measured.pace_ms / self.best_ms) if measured.pace_ms > 0 and self.best_ms < math.inf else 1.0

    def is_slow(self, measured: Measurement) -> bool:
        """Whether the time is to be taken again."""
        return self.slowness(measured) > SLOW

    def is_hopeless(self, measured: Measurement) -> bool:
        """Whether the time means nothing."""
        return self.slowness(measured) > HOPELESS

    def better(self, one: Measurement, other: Measurement) -> Measurement:
        """The lower time, which is nearer to the truth at whatever pace: others only ever make a kernel slower. It gets
        the better pace of both, since what was timed at a good one once need not be timed again.

        Times at a slow pace were corrected by the yardstick's at first: it misses the quick moments that a longer time
        finds, and bert_base, predicted 12 % faster, was 7 % slower.
        """
        return replace(min(one, other, key=lambda m: m.ms), pace_ms=min(one.pace_ms, other.pace_ms))

    def _now_ms(self) -> float:
        if self._work is None:
            self._work = _yardstick()
        with plain_torch("cpu"):
            now = min(sample_ms([self._work], 1, self._clock) for _ in range(SAMPLES))
            if now > HOPELESS * self.best_ms and self._finds_quiet_moment():
                now = RARELY_QUIET * self.best_ms
        if now > 0:
            self._seen.append(now)
        return now

    def _finds_quiet_moment(self) -> bool:
        samples = (sample_ms([self._work], 1, self._clock) for _ in range(PATIENCE) if self._work)
        return any(ms <= HOPELESS * self.best_ms for ms in samples)


class SteadyTimer:
    """A timer that times again, up to :data:`ATTEMPTS` times in all, what it timed at a slow pace."""

    device = "cpu"

    def __init__(self, timer: Timer, pace: Pace) -> None:
        self._timer, self._pace = timer, pace

    def time(self, calls: Sequence[Call]) -> Measurement:
        """The time of one call in ms."""
        best = self._pace.beside(lambda: self._timer.time(calls))
        for _ in range(1, ATTEMPTS):
            if self._pace.is_slow(best):
                best = self._pace.better(best, self._pace.beside(lambda: self._timer.time(calls)))
        return best


def _best(paces: Sequence[float]) -> float:
    return sorted(paces)[len(paces) // RARE] if paces else math.inf


def _yardstick() -> Call:
    # In double precision, whose products know no settings of precision.
    side = round(SIDE * torch.get_num_threads() ** (1 / 3))
    with plain_torch("cpu"):
        a, b = (torch.ones(side, side, dtype=torch.float64, device="cpu") for _ in range(2))
    return lambda: torch.mm(a, b)
