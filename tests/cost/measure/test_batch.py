"""Batches of kernels: they survive their members, and what was timed at a slow pace is timed again or corrected."""

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.cost.measure.impatient import Impatient
from torch_eqsat.cost.kernel import Kernel, Measurement
from torch_eqsat.cost.measure import kernels, telling
from torch_eqsat.cost.measure.batch import measure_many
from torch_eqsat.cost.measure.kernels import context_of
from torch_eqsat.cost.measure.pace import ATTEMPTS, SAMPLES, Pace
from torch_eqsat.cost.table import Table
from torch_eqsat.errors import MeasurementError

SMALL = [
    Kernel.matmul((8, 16), (16, 12)),
    Kernel.matmul((8, 16), (16, 12), weight=True),
    Kernel.conv((1, 4, 9, 9), (6, 4, 1, 1), weight=True),
]
LARGE = Kernel.matmul((512, 512), (512, 512))  # all arithmetic


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
    """A timer of a machine that finds each of its kernels slower by the next of these factors; the last one stays.
    Times stand for all arithmetic of 2 ms, and the yardstick takes 1 ms, at best."""

    def __init__(self, *slowness: float) -> None:
        super().__init__()
        self._slowness, self._now = slowness, 0.0

    def _factor(self) -> float:
        return self._slowness[min(self.timed, len(self._slowness) - 1)]

    def time(self, calls: Sequence[Callable[[], object]]) -> Measurement:
        made = Measurement(2.0 * self._factor(), 0.0, 9)
        self.timed += 1
        return made

    def pace(self, known_ms: Sequence[float] = ()) -> Pace:
        turns = itertools.count()

        def work() -> None:  # before a kernel and after it, which it counted
            after = next(turns) // SAMPLES % 2
            self._now += 1e-3 * self._slowness[min(self.timed - after, len(self._slowness) - 1)]

        return Pace(known_ms, lambda: self._now, work)


KERNELS = [Kernel.matmul((512, n), (n, 512)) for n in (512, 640, 768)]  # all arithmetic


@pytest.mark.parametrize(
    ("slowness", "timed"),
    [
        ((1.0,), 3),
        ((1.1, 1.0), 3),
        ((1.0, 1.5, 1.0), 4),
        ((1.5, 1.5, 1.0), 5),  # busy first: what is timed at the best pace that is known may be slow all the same
        ((1.0, 1.5, 1.0, 1.4, 1.0), 5),
    ],
)
def test_what_was_timed_at_a_slow_pace_is_timed_again(table: Table, slowness: tuple[float, ...], timed: int) -> None:
    machine = Machine(*slowness)
    times = measure_many(KERNELS, machine, table, pace=machine.pace())
    assert times == pytest.approx({kernel.key: 2.0 for kernel in KERNELS}, rel=0.11)
    assert machine.timed == timed
    assert min(table.paces_ms()) == pytest.approx(1.0)


def test_the_least_time_counts_and_a_good_pace_settles_it(table: Table) -> None:
    table.store_many({LARGE.key: Measurement(1.9, 0.0, 9, pace_ms=1.5)})
    machine = Machine(1.0)
    for _ in range(2):
        assert measure_many([LARGE], machine, table, pace=machine.pace([1.0])) == {LARGE.key: 1.9}
    assert machine.timed == 1


def test_a_machine_that_stays_slow(table: Table, caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine(1.5)
    with caplog.at_level(logging.INFO, "torch_eqsat"):
        assert measure_many([LARGE], machine, table, pace=machine.pace([1.0])) == {LARGE.key: 3.0}
    assert machine.timed == ATTEMPTS
    assert table.everything()[LARGE.key] == Measurement(3.0, 0.0, 9, pace_ms=pytest.approx(1.5))
    assert "1 kernels are known from a busy machine only" in caplog.text


def test_a_time_from_a_machine_that_hardly_moves_is_none(table: Table) -> None:
    machine = Machine(30.0)
    failed: dict[str, str] = {}
    assert measure_many([LARGE], machine, table, failed=failed, pace=machine.pace([1.0])) == {}
    assert failed == {LARGE.key: "the machine is 30 times slower than at best"}
    assert LARGE.key not in table.everything()
    machine = Machine(1.0)  # another time
    assert measure_many([LARGE], machine, table, pace=machine.pace([1.0])) == {LARGE.key: 2.0}


def test_a_second_attempt_that_fails_leaves_the_first(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, attempts = Machine(1.5), itertools.count()
    measure = kernels.measure

    def once(kernel: Kernel, timer: Machine) -> Measurement:
        if next(attempts):
            raise MeasurementError("busy")
        return measure(kernel, timer)

    monkeypatch.setattr(kernels, "measure", once)
    failed: dict[str, str] = {}
    times = measure_many([LARGE], machine, table, failed=failed, pace=machine.pace([1.0]))
    assert times.keys() == {LARGE.key} and not failed and next(attempts) == ATTEMPTS
