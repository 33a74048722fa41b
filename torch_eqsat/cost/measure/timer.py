"""Timers: how long a call takes, as a low quantile of many samples.

Both timers take *several* callables that do the same work on different data and run them in turn, so that the
caller decides what is warm: operands that all callables share stay in the cache, those of which each has its own
are pushed out of it.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from torch_eqsat.cost.kernel import Measurement

Call = Callable[[], object]
Clock = Callable[[], float]


class Timer(Protocol):
    """Times equal work given as one callable or several; ``device`` is the type of the device it times."""

    device: str

    def time(self, calls: Sequence[Call]) -> Measurement:
        """The time of one call in ms."""
        ...


def summary(samples_ms: Sequence[float], quantile: float) -> Measurement:
    """The ``quantile`` of the samples (in ms) as a measurement; the spread is how far the median lies above it.

    A low quantile, since everything that disturbs a kernel makes it slower; not the minimum, which for short
    kernels is an accident of the clock's resolution.
    """
    ordered = sorted(samples_ms)
    low = ordered[int(quantile * (len(ordered) - 1))]
    median = ordered[len(ordered) // 2]
    return Measurement(low, (median - low) / low if low > 0 else 0.0, len(ordered))


class CpuTimer:
    """Times calls on the CPU with the current ``torch.get_num_threads()``.

    After one warm-up of each callable a kernel gets ``budget_ms`` of wall time, but at least ``few`` samples; one
    that takes over ``long_ms`` gets 3 runs. A sample runs the callables whose turn it is, of short ones so many that
    it takes ``sample_ms``.

    With one thread the clock is the CPU time of the calling thread, which does not count the time that other
    processes hold the core: all work is done in that thread. (Of the thread, not the process: the threads of a
    compiling program would count.) With more threads it is the wall clock, and the quantile has to make up for it.
    """

    device = "cpu"
    few = 5
    most = 400
    long_ms = 20.0
    sample_ms = 0.2

    def __init__(self, budget_ms: float = 40.0, quantile: float = 0.1, clock: Clock | None = None) -> None:
        self.budget_ms = budget_ms
        self.quantile = quantile
        self._clock = clock

    def time(self, calls: Sequence[Call]) -> Measurement:
        """The time of one call in ms."""
        clock = self._clock or (time.thread_time if torch.get_num_threads() == 1 else time.perf_counter)
        wall = self._clock or time.perf_counter
        for call in calls:
            call()
        once = sample_ms(calls[-1:], 1, clock)
        turns = itertools.cycle(calls)
        if once > self.long_ms:
            return summary([once, *(sample_ms([next(turns)], 1, clock) for _ in range(2))], 0.0)
        # Not all callables: of a weight that is cold there are up to 96, and five rounds of them took 0.3 s. Of twelve
        # kernels, five times each in turn, the median times were 0.97 to 1.00 of those of whole rounds.
        count = math.ceil(self.sample_ms / max(once, 1e-4))
        rounds, part = max(1, count // len(calls)), min(count, len(calls))
        samples: list[float] = []
        end = wall() + self.budget_ms / 1e3
        while len(samples) < self.few or (wall() < end and len(samples) < self.most):
            samples.append(sample_ms(list(itertools.islice(turns, part)), rounds, clock))
        return summary(samples, self.quantile)


def sample_ms(calls: Sequence[Call], rounds: int, clock: Clock) -> float:
    """The mean time in ms of one call over ``rounds`` turns through the callables."""
    start = clock()
    for _ in range(rounds):
        for call in calls:
            call()
    return (clock() - start) * 1e3 / (rounds * len(calls))


class CudaTimer:
    """Times calls on the current CUDA device with events, each after a write of ``flush_bytes`` that empties the
    L2 cache.

    The write also keeps the GPU busy while the CPU enqueues the call, so that the events do not measure Python.
    Repeats are chosen to fill ``budget_ms`` of GPU time, within ``few`` and ``most``. ``cuda`` stands for
    ``torch.cuda`` in tests.
    """

    device = "cuda"
    few = 5
    most = 100

    def __init__(
        self,
        budget_ms: float = 40.0,
        quantile: float = 0.2,
        flush_bytes: int = 256 * 2**20,
        cuda: Any = None,
        flush: Call | None = None,
    ) -> None:
        self.budget_ms = budget_ms
        self.quantile = quantile
        self._cuda: Any = cuda or torch.cuda
        # 256 MiB is over twice the L2 cache of any card at hand (H100, H200: 50 MB; B200: 126 MB).
        self._flush = flush or torch.empty(flush_bytes, dtype=torch.int8, device="cuda").zero_

    def time(self, calls: Sequence[Call]) -> Measurement:
        """The time of one call in ms."""
        for call in calls:
            call()
        self._cuda.synchronize()
        once = max(self._run(calls, 1), default=0.0)
        repeats = min(self.most, max(self.few, math.ceil(self.budget_ms / max(once, 1e-3))))
        return summary(self._run(calls, repeats), self.quantile)

    def _run(self, calls: Sequence[Call], repeats: int) -> list[float]:
        """The GPU times in ms of ``repeats`` calls, taken in turn and waited for once, at the end."""
        pairs = [self._enqueue(calls[turn % len(calls)]) for turn in range(repeats)]
        self._cuda.synchronize()
        return [float(start.elapsed_time(end)) for start, end in pairs]

    def _enqueue(self, call: Call) -> tuple[Any, Any]:
        start, end = (self._cuda.Event(enable_timing=True) for _ in range(2))
        self._flush()
        start.record()
        call()
        end.record()
        return start, end


TIMERS: dict[str, Callable[[], Timer]] = {"cpu": CpuTimer, "cuda": CudaTimer}
"""The timers by type of device. A graph on any other device is left as it is."""
