"""The machine's pace, by a machine that says how slow it is."""

import pytest

from torch_eqsat.cost.kernel import Kernel, Measurement
from torch_eqsat.cost.measure.pace import ATTEMPTS, SAMPLES, Pace, at_best


class Machine:
    """A clock and a yardstick, of which each timed kernel finds the next of these factors."""

    def __init__(self, *slowness: float) -> None:
        self._slowness, self._now, self._turns = list(slowness), 0.0, 0

    def clock(self) -> float:
        return self._now

    def yardstick(self) -> None:
        self._now += 1e-3 * self._slowness[self._turns // (2 * SAMPLES)]
        self._turns += 1

    def kernel(self) -> Measurement:
        return Measurement(4.0 * self._slowness[self._turns // (2 * SAMPLES)], 0.0, 5)

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
    machine = Machine(1.0, *slowness)
    pace = Pace(machine.clock, machine.yardstick)
    pace.beside(machine.kernel)  # which shows the best pace
    assert pace.steadily(machine.kernel).ms == pytest.approx(ms)
    assert machine.timed == 1 + timed


def test_the_pace_of_this_machine() -> None:
    measured = Pace().beside(lambda: Measurement(1.0, 0.0, 1))
    assert measured.slowness >= 1.0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_a_time_at_the_best_pace_stays(dtype: str) -> None:
    measured = Measurement(1.0, 0.1, 9)
    assert at_best(Kernel.matmul((64, 64), (64, 64), dtype=dtype), measured) == measured
