"""The search worker: another process, without torch, under a limit of memory and of time."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.errors import WorkerError
from torch_eqsat.laws.law import law
from torch_eqsat.laws.transfer import ship
from torch_eqsat.rewrites import catalogue
from torch_eqsat.search.extractable import Extractable
from torch_eqsat.search.limits import Limits, StopReason
from torch_eqsat.search.parameters import SearchParameters
from torch_eqsat.search.worker.client import WorkerClient
from torch_eqsat.search.worker.messages import RepriceRequest, SearchRequest
from torch_eqsat.search.worker.process import allowed_laws, answer

MEMORY = 2 << 30


def run(code: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)


def test_worker_does_without_torch():
    run(
        "import sys, torch_eqsat.search.worker.process, torch_eqsat.rewrites\n"
        "torch_eqsat.rewrites.catalogue()\n"
        "assert 'egglog' in sys.modules and 'torch' not in sys.modules, sorted(sys.modules)"
    )


def test_package_imports_neither_torch_nor_egglog():
    run("import sys, torch_eqsat\nassert not {'torch', 'egglog'} & set(sys.modules)")


@pytest.fixture
def task(task_of):
    return task_of(lambda x, a, b: torch.relu((x @ a) @ b), (512, 256), (256, 512), (512, 4))


@pytest.fixture
def request_(task):
    return SearchRequest(task, Pricing(frozen=False), Limits(seconds=10.0))


def test_a_module_of_the_user_does_not_stand_in_for_one_of_the_library(request_, tmp_path, monkeypatch):
    (tmp_path / "re.py").write_text("raise RuntimeError('not what you wanted')")
    monkeypatch.syspath_prepend(tmp_path)
    with WorkerClient(MEMORY) as worker:
        assert worker.ask(request_, 30.0).stop is StopReason.SATURATED


def test_worker_answers(request_, task):
    with WorkerClient(MEMORY) as worker:
        outcome = worker.ask(request_, 30.0)
        assert outcome.program.cost < 0.5 * outcome.base_cost
        assert outcome.stop is StopReason.SATURATED
        assert outcome.missing and outcome.curve[-1][1] == outcome.program.cost
        # Prices that speak against the rewrite bring the original back.
        pricing = Pricing(frozen=False, measured={kernel.key: 1.0 for kernel in outcome.missing})
        again = worker.ask(RepriceRequest(task, outcome, pricing), 30.0)
        assert again.base_cost == pytest.approx(2.0, rel=0.2)
        assert again.program.cost <= again.base_cost
        second = worker.ask(request_, 30.0)
        assert second.program.graph.digest() == outcome.program.graph.digest()


def test_only_small_egraphs_are_extracted_exactly(request_, task):
    """Of large ones an exact extraction took seconds, and none gained by it."""
    outcome = answer(request_, lambda _: None)
    nodes = max(len(extractable.snapshot.nodes) for extractable in outcome.extractables)
    for exact_nodes, is_exact in ((nodes, True), (1, False)):
        parameters = SearchParameters(exact_nodes=exact_nodes)
        request = RepriceRequest(task, outcome, Pricing(False), milp_seconds=2.0, parameters=parameters)
        assert (answer(request, lambda _: None).lower_bound > 0) is is_exact


def test_large_egraphs_do_not_anneal(request_, task, monkeypatch):
    outcome = answer(request_, lambda _: None)
    nodes = max(len(extractable.snapshot.nodes) for extractable in outcome.extractables)
    asked, extract = [], Extractable.extract

    def extracting(self, pricing, seed, milp_seconds, leisure_seconds, missing, rounds):
        asked.append(rounds)
        return extract(self, pricing, seed, milp_seconds, leisure_seconds, missing, rounds)

    monkeypatch.setattr(Extractable, "extract", extracting)
    for annealed_nodes, rounds in ((nodes, 2), (1, 0)):
        parameters = SearchParameters(annealed_nodes=annealed_nodes)
        answer(RepriceRequest(task, outcome, Pricing(False), parameters=parameters, rounds=2), lambda _: None)
        assert set(asked) == {rounds}
        asked.clear()


def test_disabled_laws_are_not_used(task):
    request = SearchRequest(task, Pricing(False), Limits(seconds=10.0), disabled=frozenset({"matmul"}))
    with WorkerClient(MEMORY) as worker:
        outcome = worker.ask(request, 30.0)
    assert not any(law.startswith("matmul_associates") for law in outcome.program.laws)


def test_allowed_laws():
    laws = catalogue()
    assert allowed_laws("approximates", frozenset()) == list(laws)
    assert {law.exactness for law in allowed_laws("bitwise", frozenset())} == {"bitwise"}
    assert all(law.family != "matmul" for law in allowed_laws("reassociates", frozenset({"matmul"})))
    left = allowed_laws("reassociates", frozenset({"factor_of_one", "slice_through_binary"}), user_laws())
    assert "factor_of_one" not in {law.name for law in left}
    assert "slice_through_binary" not in {law.declaration for law in left}
    assert left[-1].name == "broken_association"
    assert allowed_laws("bitwise", frozenset(), user_laws())[-1].name != "broken_association"


def associates(t, a, b, c):
    """(A B) C = A (B C)"""
    return t.matmul(a, t.matmul(b, c))


def broken_association(t, a, b, c):
    """(A B) C = A (B C), for small ones"""
    return t.matmul(a, t.matmul(b, c)) if a.numel < 20 else a.no_such_attribute


def user_laws():
    example = "matmul(matmul([2, 3], [3, 4]), [4, 5])"
    return [law("matmul(matmul(a, b), c)", example=example)(f)[0] for f in (associates, broken_association)]


def test_laws_of_the_user(task):
    families = frozenset(item.family for item in catalogue())
    request = SearchRequest(task, Pricing(False), Limits(seconds=10.0), disabled=families, user_laws=ship(user_laws()))
    with WorkerClient(MEMORY) as worker:
        outcome = worker.ask(request, 30.0)
        again = worker.ask(request, 30.0)
    assert set(outcome.program.laws) == {"associates"}
    assert outcome.program.cost < 0.5 * outcome.base_cost
    ((_, problem),) = outcome.dropped
    assert "law broken_association (" in problem and "AttributeError" in problem
    assert again.dropped == outcome.dropped and again.program.cost == outcome.program.cost


def test_failure_is_reported_and_survived(request_):
    with WorkerClient(MEMORY) as worker:
        with pytest.raises(WorkerError, match="'best' is none of mcts"):
            worker.ask(replace(request_, strategy="best"), 30.0)
        assert worker.ask(request_, 30.0).stop is StopReason.SATURATED


def test_killed_worker_is_started_again(request_):
    with WorkerClient(MEMORY) as worker:
        first = worker.ask(request_, 30.0)
        os.kill(worker._process.pid, signal.SIGKILL)
        worker._process.wait()
        again = worker.ask(request_, 30.0)
    assert again.program.graph.digest() == first.program.graph.digest()


def test_late_worker(request_):
    with WorkerClient(MEMORY) as worker:
        start = time.monotonic()
        with pytest.raises(WorkerError, match="in time"):
            worker.ask(request_, 0.0)
        assert time.monotonic() - start < 5.0


def test_too_little_memory(request_):
    with WorkerClient(16 << 20) as worker, pytest.raises(WorkerError):
        worker.ask(request_, 60.0)


def test_worker_is_gone_after_use(request_):
    with WorkerClient(MEMORY) as worker:
        worker.ask(request_, 30.0)
        process = worker._process
    assert process.poll() is not None
