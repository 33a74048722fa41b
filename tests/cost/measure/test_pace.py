"""The machine's pace, by a machine that says how slow it is."""

import itertools

import pytest
import torch

from torch_eqsat.cost.kernel import Measurement
from torch_eqsat.cost.measure.pace import ATTEMPTS, SAMPLES, Pace, SteadyTimer


class Machine:
    """A clock, a yardstick and a timer, of which each timed kernel finds the next of these factors."""

    device = "cpu"

    def __init__(self, *slowness: float) -> None:
        self._slowness, self._now, self._turns = list(slowness), 0.0, 0

    def clock(self) -> float:
        return self._now

    def yardstick(self) -> None:
        self._now += 1e-3 * self._slowness[self.timed]
        self._turns += 1

    def time(self, calls: object) -> Measurement:
        return Measurement(4.0 * self._slowness[self.timed], 0.0, 5)

    @property
    def timed(self) -> int:
        return self._turns // (2 * SAMPLES)


@pytest.mark.parametrize(
    ("slowness", "timed", "ms"),
    [
        ([1.0], 1, 4.0),
        ([1.1], 1, 4.4),
        ([1.5, 1.0, 9.0], 2, 4.0),
        ([1.5, 1.4, 1.3, 9.0], ATTEMPTS, 5.2),
    ],
)
def test_what_is_timed_slowly_is_timed_again(slowness: list[float], timed: int, ms: float) -> None:
    machine = Machine(*slowness, 9.0)
    timer = SteadyTimer(machine, Pace([1.0], machine.clock, machine.yardstick))
    assert timer.time([]).ms == pytest.approx(ms)
    assert machine.timed == timed


def test_a_clock_that_erred_once_makes_no_best_pace() -> None:
    machine = Machine(*[1.0] * 12, 0.01, *[1.0] * 99)
    pace = Pace(clock=machine.clock, work=machine.yardstick)
    found = [pace.beside(lambda: machine.time([])) for _ in range(24)]
    assert pace.best_ms == pytest.approx(1.0)
    assert not any(map(pace.is_slow, found)) and not any(map(pace.is_hopeless, found))


def test_a_machine_that_is_rarely_quiet_is_slow_and_not_hopeless() -> None:
    now, turns = [0.0], itertools.count()

    def work() -> None:
        now[0] += 1e-3 if next(turns) % 10 == 9 else 20e-3

    pace = Pace([1.0], clock=lambda: now[0], work=work)
    found = pace.beside(lambda: Measurement(1.0, 0.0, 1))
    assert pace.is_slow(found) and not pace.is_hopeless(found)  # the measurement may have missed it


def test_a_clock_that_stands_still_tells_no_pace() -> None:
    pace = Pace(clock=lambda: 0.0, work=lambda: None)
    measured = pace.beside(lambda: Measurement(1.0, 0.0, 1))
    assert pace.slowness(measured) == 1.0 and not pace.is_slow(measured)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_settings_of_the_user_do_not_change_the_yardstick(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    used, mm = [], torch.mm

    def noted(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        used.append((a.dtype, a.device.type))
        return mm(a, b)

    monkeypatch.setattr(torch, "mm", noted)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        assert Pace().beside(lambda: Measurement(1.0, 0.0, 1)).pace_ms > 0
    finally:
        torch.set_default_dtype(before)
    assert set(used) == {(torch.float64, "cpu")}
