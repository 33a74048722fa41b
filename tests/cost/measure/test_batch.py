"""Batches of kernels: they survive their members, and what was timed at a slow pace is timed again or corrected."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from torch_eqsat.cost.kernel import Kernel, Measurement
from torch_eqsat.cost.measure import kernels, telling
from torch_eqsat.cost.measure.batch import BEST_PACE, measure_many
from torch_eqsat.cost.measure.kernels import context_of
from torch_eqsat.cost.measure.pace import ATTEMPTS, SAMPLES, Pace, at_best
from torch_eqsat.cost.table import Table

SMALL = [
    Kernel.matmul((8, 16), (16, 12)),
    Kernel.matmul((8, 16), (16, 12), weight=True),
    Kernel.conv((1, 4, 9, 9), (6, 4, 1, 1), weight=True),
]
LARGE = Kernel.matmul((512, 512), (512, 512))  # all arithmetic


class Impatient:
    """A timer that calls each kernel once and times nothing."""

    device = "cpu"

    def __init__(self) -> None:
        self.timed = 0

    def time(self, calls: Sequence[Callable[[], object]]) -> Measurement:
        self.timed += 1
        for call in calls:
            call()
        return Measurement(1.0, 0.0, 1)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    with Table(context_of("cpu"), tmp_path / "times.sqlite") as table:
        yield table


def test_a_batch_is_measured_once(table: Table) -> None:
    timer = Impatient()
    with table:
        times = measure_many([*SMALL, *SMALL], timer, table)
        assert times.keys() == {kernel.key for kernel in SMALL}
        assert timer.timed == len(times)
        assert measure_many(SMALL, timer, table) == times
        assert timer.timed == len(times)
        assert table.lookup_many(times).keys() == times.keys()


def test_a_kernel_that_cannot_run_is_left_out(
    table: Table, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "_told", set())
    # The CPU's flash attention wants values as wide as keys; and there is no timer for a GPU here.
    wide = Kernel.sdpa((1, 2, 8, 16), (1, 2, 8, 16), (1, 2, 8, 24))
    abroad = Kernel.matmul((2, 2), (2, 2), device="cuda")
    with table:
        times = measure_many([wide, SMALL[0], abroad], Impatient(), table)
        measure_many(
            [wide, Kernel.matmul((3, 3), (3, 3), device="cuda")], Impatient(), table
        )  # for reasons that were told
    assert list(times) == [SMALL[0].key]
    assert [record.args[0] for record in caplog.records if record.args] == [wide.key, abroad.key]
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_nothing_is_measured_after_the_deadline(table: Table) -> None:
    with table:
        assert measure_many(SMALL, Impatient(), table, deadline=time.monotonic() - 1) == {}
        known = measure_many(SMALL[:1], Impatient(), table)
        assert measure_many(SMALL, Impatient(), table, deadline=time.monotonic() - 1) == known


def test_what_cannot_be_over_by_the_deadline_is_not_begun(table: Table) -> None:
    endless = Kernel.matmul((10**5, 10**4), (10**4, 10**5))
    with table:
        times = measure_many([endless, SMALL[0]], Impatient(), table, deadline=time.monotonic() + 10)
    assert list(times) == [SMALL[0].key]


def test_what_was_refused_may_pass(
    table: Table, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_REFUSED", 1.0)

    class Timer(Impatient):
        def time(self, calls: Sequence[Callable[[], object]]) -> Measurement:
            return Measurement(1.0, 1.5, 9)

    failed: dict[str, str] = {}
    assert measure_many([SMALL[0]], Timer(), table, failed=failed) == {} == table.everything()
    # Who asked says so, in one line for all kernels.
    assert failed.keys() == {"matmul float32 cpu 8x16 16x12"} and "2.5 times" in str(failed) and not caplog.records


class Machine(Impatient):
    """A timer and a clock of a machine on which kernel and yardstick take so many times as long, one after another."""

    def __init__(self, *slowness: float) -> None:
        super().__init__()
        self._slowness, self._now = list(slowness), 0.0

    def clock(self) -> float:
        return self._now

    def work(self) -> None:
        self._now += 1e-3 * self._slowness[0]

    def time(self, calls: Sequence[Callable[[], object]]) -> Measurement:
        self.timed += 1
        return Measurement(2.0 * self._slowness[0], 0.0, 9)

    def pace(self) -> Pace:
        turns = 0

        def work() -> None:
            nonlocal turns
            self.work()
            turns += 1
            if turns % (2 * SAMPLES) == 0 and len(self._slowness) > 1:  # before and after a kernel
                self._slowness.pop(0)

        return Pace(self.clock, work)


def test_what_was_timed_at_a_slow_pace_is_timed_again(table: Table) -> None:
    machine = Machine(1.0, 1.5, 1.0)
    assert measure_many([SMALL[0], LARGE], machine, table, pace=machine.pace()) == {SMALL[0].key: 2.0, LARGE.key: 2.0}
    assert machine.timed == 3
    assert table.coefficients() == {BEST_PACE: pytest.approx(1.0)}


def test_times_are_corrected_on_a_machine_that_stays_slow(table: Table, caplog: pytest.LogCaptureFixture) -> None:
    table.store_coefficients({BEST_PACE: 1.0}, 0.0, 1)
    machine = Machine(1.5)
    with caplog.at_level(logging.INFO, "torch_eqsat"):
        times = measure_many([LARGE], machine, table, pace=machine.pace())
    assert machine.timed == ATTEMPTS
    assert times[LARGE.key] == pytest.approx(2.0, rel=0.1) == table.everything()[LARGE.key].ms
    assert "1 kernels were timed on a busy machine, up to 1.5 times slower; corrected" in caplog.text


def test_waiting_for_memory_is_not_corrected() -> None:
    row = Kernel.matmul((1, 4096), (4096, 4096))
    assert at_best(row, Measurement(1.0, 0.0, 9, 1.4)).ms > 0.9
    assert at_best(LARGE, Measurement(1.4, 0.0, 9, 1.4)).ms < 1.1


def test_times_from_before_the_best_pace_was_known_are_forgotten(table: Table) -> None:
    table.store_coefficients({BEST_PACE: 1.5, "other": 3.0}, 0.0, 1)
    table.store_many({"old": Measurement(3.0, 0.0, 9)})
    machine = Machine(1.0)
    measure_many([LARGE], machine, table, pace=machine.pace())
    assert table.everything().keys() == {LARGE.key}
    assert table.coefficients() == {BEST_PACE: pytest.approx(1.0), "other": 3.0}


def test_times_of_about_the_same_pace_are_kept(table: Table) -> None:
    table.store_coefficients({BEST_PACE: 1.05}, 0.0, 1)
    table.store_many({"old": Measurement(3.0, 0.0, 9)})
    machine = Machine(1.0)
    measure_many([LARGE], machine, table, pace=machine.pace())
    assert table.everything().keys() == {"old", LARGE.key}
