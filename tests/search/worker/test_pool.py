"""Many regions at once: workers of our own, executors, and what goes wrong in one of them."""

import signal
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Timer

import pytest
import torch

from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.cost.programs import captured_program, cost_of
from torch_eqsat.rewrites import catalogue
from torch_eqsat.search.limits import Budget, Limits, StopReason
from torch_eqsat.search.worker.client import WorkerClient
from torch_eqsat.search.worker.messages import Progress, RepriceRequest, SearchRequest
from torch_eqsat.search.worker.pool import WorkerPool, gave_up

MEMORY = 2 << 30
OTHERS = frozenset(law.family for law in catalogue()) - {"matmul"}  # a few laws are enough here


@pytest.fixture
def requests(task_of):
    """Three searches, of a product each that is better associated otherwise."""
    tasks = [
        task_of(lambda x, a, b: torch.relu((x @ a) @ b), (512, 256), (256, 512), (512, width)) for width in (2, 4, 6)
    ]
    return [SearchRequest(task, Pricing(False), Limits(seconds=60.0), disabled=OTHERS) for task in tasks]


def constantly(values):
    return [partial(replace, value) for value in values]


def soon():
    """A moment that no answer here needs."""
    return time.monotonic() + 300.0


def check(outcomes):
    assert [outcome.stop for outcome in outcomes] == [StopReason.SATURATED] * 3
    for outcome, width in zip(outcomes, (2, 4, 6), strict=True):
        assert outcome.program.cost < 0.5 * outcome.base_cost
        assert outcome.program.graph.types[outcome.program.graph.roots[0]].shape == (512, width)


@pytest.mark.parametrize("workers", [1, 2])
def test_answers_come_in_order(requests, workers):
    with WorkerPool(MEMORY, workers=workers) as pool:
        check(pool.map(constantly(requests), soon()))


def test_as_many_workers_as_cores_give_the_same_plans(requests):
    digests = []
    for workers in (1, 2):
        with WorkerPool(MEMORY, workers=workers) as pool:
            digests.append([outcome.program.graph.digest() for outcome in pool.map(constantly(requests), soon())])
    assert digests[0] == digests[1]


def test_any_executor_will_do(requests):
    with ThreadPoolExecutor(2) as executor, WorkerPool(MEMORY, executor) as pool:
        check(pool.map(constantly(requests), soon()))


def test_dask_cluster(requests):
    """Workers of a Dask cluster (here one on this machine) start the search workers."""
    distributed = pytest.importorskip("distributed", reason="needs the package distributed (pip install distributed)")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster,
        cluster.get_client() as client,
        WorkerPool(MEMORY, client.get_executor()) as pool,
    ):
        check(pool.map(constantly(requests), soon()))


class Broken(Executor):
    """Loses its second task."""

    def __init__(self):
        self.count = 0

    def submit(self, function, /, *arguments, **keywords):
        future = Future()
        self.count += 1
        if self.count == 2:
            future.set_exception(ConnectionError("the machine is gone"))
        else:
            future.set_result(function(*arguments, **keywords))
        return future


def test_a_lost_machine_costs_its_region_alone(requests):
    with WorkerPool(MEMORY, Broken()) as pool:
        first, second, third = pool.map(constantly(requests), soon())
    assert first.stop is third.stop is StopReason.SATURATED
    assert second.stop is StopReason.FAILED and second.transient and not first.transient
    assert second.detail == second.reason == "ConnectionError: the machine is gone"
    assert second.program.cost == second.base_cost


def test_no_time(requests):
    nothing = [replace(request, limits=Limits(seconds=0.0)) for request in requests]
    with WorkerPool(MEMORY, workers=1) as pool:
        outcomes = pool.map(constantly(nothing), soon())
    assert [outcome.stop for outcome in outcomes] == [StopReason.TIME] * 3
    assert not any(outcome.transient for outcome in outcomes)
    assert all(outcome.program.cost == outcome.base_cost for outcome in outcomes)


def test_out_of_memory(requests):
    """The captured program is the answer. Where memory ends, and so what the worker says or whether it says anything,
    is another place in each process."""
    with WorkerPool(16 << 20, workers=1) as pool:
        outcomes = pool.map(constantly(requests), soon())
    assert all(outcome.transient and outcome.detail for outcome in outcomes)
    assert all(outcome.stop in (StopReason.FAILED, StopReason.LATE) for outcome in outcomes)
    assert all(outcome.program.cost == outcome.base_cost for outcome in outcomes)


@pytest.fixture
def endless(task_of):
    """A search for which there are ever more programs to look at, of which the first are found soon."""
    shapes = [(8, 256), *[(256, 8)] * 12, *[(8, 256)] * 12]

    def products(x, *weights):
        return torch.stack([torch.relu((x @ a) @ b) for a, b in zip(weights[:12], weights[12:], strict=True)])

    limits = Limits(seconds=30.0, simulations=10_000)
    return SearchRequest(task_of(products, *shapes), Pricing(frozen=True), limits, strategy="substitution")


@pytest.fixture
def interruptible():
    """Ctrl-C raises here, also in a job that a script runs in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def when_found(monkeypatch):
    """Calls a function once, when the first better program is reported."""

    def install(action):
        receive = WorkerClient._receive
        actions = [action]

        def watched(client, channel, deadline):
            message = receive(client, channel, deadline)
            if isinstance(message, Progress) and actions:
                actions.pop()()
            return message

        monkeypatch.setattr(WorkerClient, "_receive", watched)

    return install


def test_killed_worker_keeps_what_it_reported(endless, when_found):
    with WorkerPool(MEMORY, workers=1) as pool:
        when_found(lambda: [worker.kill() for worker in pool._busy])
        (outcome,) = pool.map([lambda: endless], soon())
    assert outcome.stop is StopReason.FAILED and outcome.transient
    assert outcome.detail == "the search worker died (exit code -9), out of memory perhaps"
    assert len(outcome.curve) > 1 and outcome.program.cost < outcome.base_cost


@pytest.mark.usefixtures("interruptible")
def test_interrupt_ends_all_searches_with_what_they_have(endless, when_found):
    with WorkerPool(MEMORY, workers=1) as pool:
        when_found(lambda: signal.raise_signal(signal.SIGINT))
        first, second = pool.map([lambda: endless, lambda: endless], soon())
    assert pool.interrupted
    assert first.transient and second.transient
    assert first.stop is StopReason.INTERRUPTED and first.program.cost < first.base_cost
    assert second.stop is StopReason.INTERRUPTED and second.program.cost == second.base_cost


@pytest.mark.usefixtures("interruptible")
def test_second_interrupt_is_raised(endless, when_found, monkeypatch):
    """It was taken for the first one again and again, and compilation went on."""

    def again(_):  # while the first one is waited for
        Timer(0.1, signal.raise_signal, (signal.SIGINT,)).start()

    monkeypatch.setattr("torch_eqsat.search.worker.pool.AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(WorkerClient, "interrupt", again)
    with pytest.raises(KeyboardInterrupt), WorkerPool(MEMORY, workers=1) as pool:
        when_found(lambda: signal.raise_signal(signal.SIGINT))
        pool.map([lambda: endless, lambda: endless], soon())


def test_repricing_that_fails_keeps_what_is_known(requests):
    with WorkerPool(MEMORY, workers=1) as pool:
        (outcome,) = pool.map(constantly(requests[:1]), soon())
    by_work = {kernel.key: kernel.flops * 1e-6 for kernel in outcome.missing}
    again = RepriceRequest(requests[0].task, outcome, Pricing(frozen=False, measured=by_work))
    kept = gave_up(again, StopReason.LATE, "because")
    assert kept.program.graph is outcome.program.graph and not kept.unmeasured
    assert (kept.stop, kept.detail, kept.transient) == (StopReason.LATE, "because", True)
    assert kept.program.cost < kept.base_cost
    with WorkerPool(MEMORY, workers=1) as pool:
        (answered,) = pool.map(constantly([again]), soon())
    assert kept.program.cost == pytest.approx(answered.program.cost) and kept.base_cost == answered.base_cost
    all_alike = Pricing(frozen=False, measured=dict.fromkeys(by_work, 1.0))
    dropped = gave_up(replace(again, pricing=all_alike), StopReason.LATE)
    assert dropped.program.cost == dropped.base_cost


def test_budget_is_shared_by_weight():
    budget = Budget(100.0, [1.0, 3.0])
    assert budget.share(1.0) == pytest.approx(25.0, abs=0.5)
    assert budget.share(3.0) == pytest.approx(100.0, abs=0.5)  # the first took no time
    parallel = Budget(100.0, [1.0, 1.0, 2.0], workers=2)
    assert parallel.share(1.0) == pytest.approx(50.0, abs=0.5)
    assert Budget(0.0, [1.0]).share(1.0) == 0.0
    assert Budget(9.0, [0.0, 0.0]).share(0.0) == pytest.approx(9.0, abs=0.5)


def test_work_of_a_call_that_returns_a_tuple_counts_once(task_of):
    """It counted twice: for its item, and for the call, which has no parts of its own."""
    task = task_of(lambda x: torch.var_mean(torch.sin(x), 1)[0], (64, 512))
    pricing = Pricing(frozen=False)
    captured = captured_program(task, pricing)
    assert () in task.parts.values()
    assert cost_of(task, captured, pricing) == pytest.approx(captured.cost, rel=1e-2)
