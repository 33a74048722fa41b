"""What tests of several packages use."""

import gc
import math
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._inductor.lowering  # decompositions read it without importing it
from torch._dynamo.utils import counters
from torch._inductor.decomposition import select_decomp_table
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from torch_eqsat.cost.measure import kernels
from torch_eqsat.egraph import workshop
from torch_eqsat.egraph.engine import Engine
from torch_eqsat.graph.capture import capture
from torch_eqsat.ir.program import Task
from torch_eqsat.planning import found
from torch_eqsat.search.worker.client import WorkerClient
from torch_eqsat.search.worker.pool import WorkerPool


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="one case of each test that is not slow")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--quick"):
        return
    cases = {item.nodeid.partition("[")[0]: item for item in reversed(items) if not item.get_closest_marker("slow")}
    kept = list(reversed(cases.values()))
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def pytest_collectstart(collector):
    """Each module draws its own numbers, whatever was imported before it; so does each test (`numbers_are_its_own`)."""
    torch.manual_seed(0)


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class _Watched(Engine):
    def __init__(self) -> None:
        super().__init__()
        _engines.add(self)


@pytest.fixture(autouse=True)
def numbers_are_its_own():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def egraphs_end_in_their_thread(monkeypatch):
    """What a test left behind is collected here, not in a thread of a later test, where egglog refuses to drop it."""
    monkeypatch.setattr(workshop, "Engine", _Watched)
    yield
    if any(engine._egraph is not None for engine in _engines):
        gc.collect()


@pytest.fixture(autouse=True)
def times_are_believed(monkeypatch):
    """Also those of a busy machine, which would be refused, and with eqsat.strict raise."""
    monkeypatch.setattr(kernels, "_REFUSED", math.inf)


_kept: dict[Any, list[WorkerClient]] = {}  # of one key at a time


class KeptPool(WorkerPool):
    """Has the workers of the pool before it: one takes a second or two of CPU to start and to compile the laws."""

    def __init__(self, memory_bytes: int, *arguments: Any, **options: Any) -> None:
        super().__init__(memory_bytes, *arguments, **options)
        # What a worker takes from the process that starts it.
        environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
        self._key = memory_bytes, tuple(sys.path), os.getcwd(), tuple(sorted(environment.items()))
        self._idle = _kept.pop(self._key, [])

    def __exit__(self, *details: Any) -> None:
        with self._lock:
            workers, self._idle = [w for w in self._idle if not w._killed], []
        stop_kept_workers()
        _kept[self._key] = workers
        super().__exit__(*details)


def stop_kept_workers() -> None:
    for workers in _kept.values():
        for worker in workers:
            worker.stop()
    _kept.clear()


@pytest.fixture(autouse=True)
def workers_are_kept(monkeypatch):
    """Compilations share search workers. Tests of the workers themselves make pools and clients of their own."""
    monkeypatch.setattr(found, "WorkerPool", KeptPool)


@pytest.fixture
def no_kept_workers():
    """The next search starts a worker."""
    stop_kept_workers()


@pytest.fixture(scope="session", autouse=True)
def workers_end():
    yield
    stop_kept_workers()


@pytest.fixture
def one_thread():
    """torch on one thread: where others work too, kernels of several are timed to a multiple of what they take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def trace() -> Callable[..., GraphModule]:
    """Traces a function to the functional graph of ATen calls that Inductor's passes see."""

    def trace_(function: Callable[..., Any], *inputs: Any) -> GraphModule:
        functional = torch.func.functionalize(function, remove="mutations")
        module = make_fx(functional, decomposition_table=select_decomp_table(), tracing_mode="fake")(*inputs)
        module.graph.eliminate_dead_code()
        module.recompile()
        return module

    return trace_


@pytest.fixture
def task_of(trace):
    """The task of a function's graph; ``static`` are the positions of its weights."""

    def make(function, *shapes, static=()) -> Task:
        graph = trace(function, *(torch.empty(shape) for shape in shapes)).graph
        placeholders = graph.find_nodes(op="placeholder")
        captured = capture(graph, {placeholders[i] for i in static})
        return Task(captured.graph, captured.parts)

    return make


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A cache of plans of its own, and nothing left of earlier compilations."""
    monkeypatch.setenv("TORCH_EQSAT_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()
