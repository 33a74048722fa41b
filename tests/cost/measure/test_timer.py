"""Timers, on clocks and CUDA events made for the purpose and on real ones."""

import itertools
import time
from collections.abc import Callable

import pytest
import torch

from torch_eqsat.cost.measure.timer import CpuTimer, CudaTimer, summary


class Machine:
    """A clock that moves only when work is done: each call takes the next of the given times (ms), over and over."""

    def __init__(self, *costs_ms: float) -> None:
        self.now = 0.0
        self.calls = 0
        self._costs = itertools.cycle(costs_ms)

    def clock(self) -> float:
        return self.now

    def work(self) -> None:
        self.calls += 1
        self.now += next(self._costs) / 1e3


def test_a_low_quantile_and_its_spread() -> None:
    measured = summary([9.0, 1.0, 2.0, 3.0, 50.0], 0.25)
    assert (measured.ms, measured.spread, measured.repeats) == (2.0, 0.5, 5)
    assert summary([0.0], 0.1).spread == 0.0


def test_disturbances_do_not_count() -> None:
    machine = Machine(1.0, 1.0, 7.0)
    measured = CpuTimer(clock=machine.clock).time([machine.work])
    assert measured.ms == pytest.approx(1.0)
    assert measured.repeats >= CpuTimer.few


def test_the_budget_is_kept() -> None:
    machine = Machine(2.0)
    assert CpuTimer(budget_ms=40.0, clock=machine.clock).time([machine.work]).repeats == 20
    assert machine.now * 1e3 == pytest.approx(44.0)


def test_a_long_kernel_runs_three_times() -> None:
    machine = Machine(30.0, 50.0, 40.0, 45.0)
    measured = CpuTimer(clock=machine.clock).time([machine.work])
    assert (measured.ms, measured.repeats) == (pytest.approx(40.0), 3)
    assert machine.calls == 4


def test_a_short_kernel_is_repeated_inside_a_sample() -> None:
    machine = Machine(1e-3)
    measured = CpuTimer(clock=machine.clock).time([machine.work])
    assert measured.ms == pytest.approx(1e-3)
    assert measured.repeats <= CpuTimer.most < machine.calls


def test_callables_take_turns() -> None:
    machines = [Machine(2.0) for _ in range(8)]
    measured = CpuTimer(clock=lambda: sum(machine.now for machine in machines)).time([m.work for m in machines])
    assert measured.ms == pytest.approx(2.0)
    calls = [machine.calls for machine in machines]
    assert max(calls) - min(calls) <= 2  # one was tried alone to see how long a call takes


def test_many_callables_keep_the_budget() -> None:
    """Five rounds of 96 copies of a cold weight took 0.3 s."""
    machines = [Machine(1.0) for _ in range(96)]
    measured = CpuTimer(40.0, clock=lambda: sum(machine.now for machine in machines)).time([m.work for m in machines])
    assert measured.repeats == 40
    assert sum(machine.calls for machine in machines) == 96 + 1 + 40


def test_the_cpu_clock_of_one_thread_does_not_count_waiting(one_thread: None) -> None:
    assert CpuTimer(budget_ms=5.0).time([lambda: time.sleep(2e-3)]).ms < 1.0


def test_the_wall_clock_serves_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert CpuTimer(budget_ms=5.0).time([lambda: time.sleep(2e-3)]).ms >= 2.0


def test_a_real_operator(one_thread: None) -> None:
    small, large = (torch.randn(n, n) for n in (64, 256))
    timer = CpuTimer(budget_ms=10.0)
    times = [timer.time([lambda m=matrix: torch.mm(m, m)]).ms for matrix in (small, large)]
    assert 0 < times[0] < times[1]


class RecordingCuda:
    """Stands for torch.cuda: a stream of work with a clock in ms that moves when work on it is started."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def launch(self, name: str, ms: float) -> Callable[[], None]:
        def start() -> None:
            self.log.append(name)
            self.now += ms

        return start

    def synchronize(self) -> None:
        self.log.append("synchronize")

    def Event(self, enable_timing: bool) -> "RecordingEvent":
        assert enable_timing
        return RecordingEvent(self)


class RecordingEvent:
    def __init__(self, cuda: RecordingCuda) -> None:
        self.cuda = cuda
        self.at = -1.0

    def record(self) -> None:
        self.cuda.log.append("record")
        self.at = self.cuda.now

    def elapsed_time(self, end: "RecordingEvent") -> float:
        assert self.cuda.log[-1] == "synchronize", "a time was read before the GPU had finished"
        return end.at - self.at


def test_events_enclose_the_kernel_and_not_the_flush() -> None:
    cuda = RecordingCuda()
    timer = CudaTimer(budget_ms=40.0, cuda=cuda, flush=cuda.launch("flush", 100.0))
    measured = timer.time([cuda.launch("a", 1.0), cuda.launch("b", 1.0)])
    assert measured.ms == pytest.approx(1.0)
    assert measured.repeats == 40
    assert cuda.log[:3] == ["a", "b", "synchronize"], "a warm-up of each comes first"
    timed = cuda.log[cuda.log.index("synchronize", 3) + 1 :]
    assert timed[:8] == ["flush", "record", "a", "record", "flush", "record", "b", "record"]
    assert timed.count("synchronize") == 1


@pytest.mark.parametrize(("ms", "repeats"), [(500.0, CudaTimer.few), (1e-4, CudaTimer.most)])
def test_repeats_stay_within_limits(ms: float, repeats: int) -> None:
    cuda = RecordingCuda()
    timer = CudaTimer(cuda=cuda, flush=cuda.launch("flush", 0.1))
    assert timer.time([cuda.launch("kernel", ms)]).repeats == repeats


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_real_kernel_on_a_gpu() -> None:
    small, large = (torch.randn(n, n, device="cuda") for n in (1024, 4096))
    timer = CudaTimer()
    times = [timer.time([lambda m=matrix: torch.mm(m, m)]).ms for matrix in (small, large)]
    assert 0 < times[0] < times[1]
