"""The planner between its workers and its measurements."""

import logging
import math
from dataclasses import fields, replace

import pytest
import torch

from torch_eqsat.cost.calibration import Calibration
from torch_eqsat.cost.measure.kernels import context_of
from torch_eqsat.cost.programs import residency_of
from torch_eqsat.cost.roofline import Coefficients
from torch_eqsat.cost.table import Table
from torch_eqsat.options import Options
from torch_eqsat.planning.job import plan_key
from torch_eqsat.planning.pipeline import optimize
from torch_eqsat.planning.planner import Planner
from torch_eqsat.planning.setting import Setting
from torch_eqsat.planning.spent import Spent
from torch_eqsat.planning.verdict import GraphInputs
from torch_eqsat.search.limits import StopReason
from torch_eqsat.search.parameters import SearchParameters
from torch_eqsat.search.partition import Partition
from torch_eqsat.search.worker.pool import gave_up
from torch_eqsat.search.worker.process import answer


class InterruptedPool:
    """A pool whose searches the user interrupts."""

    workers = 1
    interrupted = False

    def map(self, requests, until):
        self.interrupted = True
        return [gave_up(request(), StopReason.INTERRUPTED) for request in requests]


@pytest.fixture
def partition(task_of):
    return Partition.of(task_of(lambda x, a, b: (x @ a) @ b, (64, 32), (32, 64), (64, 4)))


def test_nothing_is_measured_after_an_interrupt(partition, caplog):
    measured = []
    pool = InterruptedPool()

    def measure(kernels, until):
        measured.append(pool.interrupted)
        return {kernel.key: 1.0 for kernel in kernels}

    planner = Planner(Setting(Options(), True, "cpu", 1, "key"), Spent(), pool, measure)
    with caplog.at_level(logging.WARNING, logger="torch_eqsat"):
        (outcome,) = planner.search(partition).values()
    assert measured == [False]
    assert outcome.stop is StopReason.INTERRUPTED and outcome.program.cost == outcome.base_cost
    assert outcome.transient and not caplog.records  # who stores plans says so, once a graph


def test_stored_coefficients_reach_prices_and_plans(tmp_path, monkeypatch, trace, task_of):
    monkeypatch.setenv("TORCH_EQSAT_CACHE_DIR", str(tmp_path))
    with Table(context_of("cpu")) as table:
        table.store_coefficients({"fusible slow_ns": 7.0, "roofline peak_flops_per_ms": 1e12}, 0.0, 1)
    seen = []
    monkeypatch.setattr(
        "torch_eqsat.planning.pipeline.search_regions", lambda task, setting, spent, repeated: seen.append(setting)
    )
    with pytest.raises(AttributeError):  # no plan was made
        optimize(
            trace(torch.relu, torch.empty(4)).graph,
            Setting(Options(), False, "cpu", 1, "key"),
            GraphInputs(frozenset(), ()),
        )
    (setting,) = seen
    prices = Planner(setting, Spent(), InterruptedPool(), lambda kernels, until: {}).pricing()
    assert prices.coefficients.slow_ns == 7.0
    assert prices.roofline.peak_flops_per_ms == 1e12
    task = task_of(torch.relu, (4,))
    assert plan_key(task, setting, {}) != plan_key(task, replace(setting, calibration=Calibration()), {})


@pytest.mark.parametrize("name", [field.name for field in fields(SearchParameters)])
def test_the_key_of_a_plan_changes_with_each_parameter(name, task_of):
    task, setting = task_of(torch.relu, (4,)), Setting(Options(), False, "cpu", 1, "key")
    other = replace(setting.parameters, **{name: getattr(setting.parameters, name) + 1})
    assert plan_key(task, setting, {}) == plan_key(task, replace(setting, parameters=SearchParameters()), {})
    assert plan_key(task, setting, {}) != plan_key(task, replace(setting, parameters=other), {})


def test_parameters_reach_the_searches(partition):
    """Also those of other processes: they are part of each request."""
    parameters, requests = SearchParameters(search_share=0.5, kernel_doubt=0.9), []

    class Listening(LocalPool):
        def map(self, asked, until):
            requests.extend(request() for request in asked)
            return super().map(asked, until)

    setting = Setting(Options(), False, "cpu", 1, "key", parameters=parameters)
    Planner(setting, Spent(), Listening(), lambda kernels, until: {}).search(partition)
    assert requests and all(request.parameters == parameters for request in requests)


class LocalPool:
    """A pool that searches here."""

    workers = 1
    interrupted = False

    def map(self, requests, until):
        return [answer(request(), lambda outcome: None) for request in requests]


@pytest.mark.parametrize(("saved", "kept"), [(0.0, False), (0.05, False), (0.5, True)])
def test_what_saves_less_than_prices_err_is_left(partition, saved, kept):
    """All the work changes, 2 ms of it and what takes its place: a fiftieth of that has to be saved."""
    ms = {"matmul float32 cpu 32x64 64x4": 1.001, "matmul float32 cpu 64x32 32x4": 1.0 - saved}

    def times(kernels, until):
        return {kernel.key: ms.get(kernel.key, 1.0) for kernel in kernels}

    def program(**options):
        setting = Setting(Options(**options), False, "cpu", 1, "key")
        (outcome,) = Planner(setting, Spent(), LocalPool(), times).search(partition).values()
        assert outcome.base_cost == pytest.approx(2.0, rel=1e-3)
        return outcome.program

    assert program().cost == pytest.approx(2.0 - saved * kept, rel=2e-3)
    assert bool(program().laws) == kept
    assert bool(program(measure=True).laws) == (saved > 0)  # the race decides


def test_a_small_saving_does_not_ride_along_on_a_large_one(task_of):
    """Of two chains one saves half of its 2 ms and the other a hundredth. What stays as captured is an opaque call."""
    shapes = (64, 32), (32, 64), (64, 4), (64, 48), (48, 80), (80, 4)
    task = task_of(lambda x, a, b, y, c, d: ((x @ a) @ b) * ((y @ c) @ d), *shapes)
    ms = {"matmul float32 cpu 32x64 64x4": 0.001, "matmul float32 cpu 48x80 80x4": 0.98}

    def products(**options):
        setting = Setting(Options(**options), False, "cpu", 1, "key")
        planner = Planner(
            setting, Spent(), LocalPool(), lambda kernels, until: {k.key: ms.get(k.key, 1.0) for k in kernels}
        )
        (outcome,) = planner.search(Partition.of(task)).values()
        return {
            outcome.program.graph.types[i].shape for i, n in enumerate(outcome.program.graph.nodes) if n.op == "matmul"
        }

    assert products() == {(32, 4), (64, 4)}
    assert products(measure=True) == {(32, 4), (48, 4), (64, 4)}  # the race decides


def found(task, unmeasurable, ms):
    """The outcome for a task of one region, and what was spent. Kernels take ``ms`` by key, or 0.1; one has none."""

    def times(kernels, until):
        return {k.key: ms.get(k.key, 0.1) for k in kernels if k.key != f"matmul float32 cpu {unmeasurable}"}

    planner = Planner(Setting(Options(), False, "cpu", 1, "key"), Spent(), LocalPool(), times)
    (outcome,) = planner.search(Partition.of(task)).values()
    return outcome, planner.spent


def test_the_best_program_without_estimates_is_taken(task_of):
    """By estimates x (a (b c)) is the cheapest of a chain; one of its kernels gets no time."""
    task = task_of(lambda x, a, b, c: ((x @ a) @ b) @ c, (80, 32), (32, 64), (64, 48), (48, 4))
    captured = ("80x32 32x64", "80x64 64x48", "80x48 48x4")
    outcome, spent = found(task, "32x64 64x4", {f"matmul float32 cpu {shapes}": 1.0 for shapes in captured})
    assert outcome.base_cost == pytest.approx(3.0, rel=1e-3)
    assert outcome.program.cost == pytest.approx(0.3, rel=1e-2)
    assert spent.kernels_left == 1


def test_without_time_to_measure_nothing_is_changed(partition):
    asked = []
    setting = Setting(Options(measure_seconds=0.0), False, "cpu", 1, "key")
    planner = Planner(setting, Spent(), LocalPool(), lambda kernels, until: asked.append(1) or {})
    (outcome,) = planner.search(partition).values()
    assert not asked and not outcome.program.laws


def test_what_programs_need_is_measured_before_what_they_might(task_of):
    """Then what might be better, the cheap first."""
    asked = []

    def times(kernels, until):
        asked.append([k.key.removeprefix("matmul float32 cpu ") for k in kernels])
        return {k.key: 1.0 for k in kernels}

    task = task_of(lambda x, a, b, c: ((x @ a) @ b) @ c, (80, 32), (32, 64), (64, 48), (48, 4))
    planner = Planner(Setting(Options(), False, "cpu", 1, "key"), Spent(), LocalPool(), times)
    planner.search(Partition.of(task))
    originals, needed, others, *_ = asked
    assert originals == ["80x32 32x64", "80x64 64x48", "80x48 48x4"]
    assert needed == ["64x48 48x4", "32x64 64x4", "80x32 32x4"]
    assert others[:3] == ["32x48 48x4", "80x64 64x4", "32x64 64x48"]
    assert not {*originals, *needed} & {*others}


def test_an_interrupt_while_extracting_again_ends_the_measuring(partition):
    pool = LocalPool()
    asked = []

    def times(kernels, until):
        asked.append(pool.interrupted)
        pool.interrupted = len(asked) == 2
        return {kernel.key: 1.0 for kernel in kernels}

    planner = Planner(Setting(Options(), False, "cpu", 1, "key"), Spent(), pool, times)
    (outcome,) = planner.search(partition).values()
    assert asked == [False, False]
    assert outcome.transient and outcome.stop is StopReason.INTERRUPTED


def test_an_interrupt_that_comes_after_the_search_keeps_prices_from_being_measured(partition):
    """Its program, at estimated prices, was stored as if nothing had happened."""

    class LatePool(LocalPool):
        def map(self, requests, until):
            self.interrupted = True
            return super().map(requests, until)

    planner = Planner(Setting(Options(), False, "cpu", 1, "key"), Spent(), LatePool(), lambda *_: {})
    (outcome,) = planner.search(partition).values()
    assert outcome.transient and outcome.stop is StopReason.INTERRUPTED


class AnsweringPool:
    """A pool that answers in this process and keeps the requests."""

    workers = 1
    interrupted = False

    def __init__(self):
        self.turns = []

    def map(self, requests, until):
        self.turns.append([request() for request in requests])
        return [answer(request, lambda found: None) for request in self.turns[-1]]


def test_regions_that_are_equal_up_to_sizes_share_a_search(task_of):
    tasks = [task_of(lambda a, b, c: (a @ b) @ c, (n, 8), (8, n), (n, 16)) for n in (512, 768)]
    tasks.append(task_of(lambda x: x.relu(), (64,)))
    pool = AnsweringPool()
    planner = Planner(Setting(Options(deterministic=True), False, "cpu", 1, "key"), Spent(), pool, lambda *_: {})
    outcomes = planner._searched(tasks, [1.0, 3.0, 2.0])
    leaders, followers = pool.turns
    assert [request.task for request in leaders] == [tasks[1], tasks[2]]
    assert [request.task for request in followers] == [tasks[0]]
    assert leaders[0].limits.simulations > followers[0].limits.simulations
    assert leaders[0].hint is None and followers[0].hint.laws
    assert [outcome.base_cost > 0 for outcome in outcomes] == [True] * 3
    assert outcomes[0].stop is StopReason.HINT and outcomes[0].program.cost < outcomes[0].base_cost


@pytest.mark.parametrize(("from_memory", "folded"), [(5.0, False), (0.6, True)])
def test_weights_that_leave_the_cache_are_priced_from_memory(task_of, from_memory, folded):
    """Two thin matrices stay in the cache, and their product does not: it is measured where it will be found."""
    task = task_of(lambda x, a, b: (x @ a) @ b, (16, 512), (512, 8), (8, 512), static=(1, 2))
    measured = []

    def times(kernels, until):
        measured.extend(k.key for k in kernels)
        large = {k.key for k in kernels if math.prod(k.shapes[1]) >= 512 * 512}
        return {k.key: (from_memory if k.cold else 0.5) if k.key in large else 1.0 for k in kernels}

    calibration = Calibration(Coefficients(cache_bytes=100_000.0, last_level_bytes=0.0))
    setting = Setting(Options(), True, "cpu", 1, "key", calibration=calibration)
    planner = Planner(setting, Spent(), LocalPool(), times, residency_of(task, frozen=True))
    (outcome,) = planner.search(Partition.of(task)).values()
    assert "matmul float32 cpu 16x512 512x512 weight cold" in measured
    assert bool(outcome.program.laws) == folded
