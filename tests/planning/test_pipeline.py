"""Plans as they depend on options: timed graphs, no timing at all, prices of other machines. Free of generated code."""

import os
import subprocess
import sys

import pytest
import torch

from torch_eqsat.backend import reset
from torch_eqsat.counters import count_timing, timings
from torch_eqsat.options import Options
from torch_eqsat.planning import acceptance, job
from torch_eqsat.planning.pipeline import optimize
from torch_eqsat.planning.race import Contest, NoRaceError
from torch_eqsat.planning.setting import Setting
from torch_eqsat.planning.verdict import GraphInputs
from torch_eqsat.search.worker.pool import WorkerPool

PROGRAM = """
import sys
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch_eqsat.counters import timings
from torch_eqsat.planning.pipeline import optimize
from torch_eqsat.search.worker.pool import WorkerPool
from torch_eqsat.planning.verdict import GraphInputs
from torch_eqsat.options import Options
from torch_eqsat.planning.setting import Setting

def cell(x, a, b, c):
    return torch.tanh(x @ a @ b + x @ c) @ a @ b

torch.set_num_threads(1)
module = make_fx(cell, tracing_mode="fake")(*(torch.empty(64, 64) for _ in range(4)))
setting = Setting(Options(deterministic=True, seconds=0.3), True, "cpu", 1, sys.argv[1])
report = optimize(module.graph, setting, GraphInputs(frozenset({1, 2, 3}), ()))
print(report.from_plan, report.base_ms, report.best_ms, timings(), sorted(report.laws.items()))
print(module.graph)
"""


@pytest.fixture(autouse=True)
def one_thread(fresh):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    reset()
    yield
    reset()
    torch.set_num_threads(threads)


def chain(x, a, b):
    return (x @ a) @ b


@pytest.fixture
def planned(trace):
    """Plans a chain of products, of which the second has one column, and gives the report and whether it changed."""

    def plan(**options):
        inputs = torch.rand(64, 64), torch.rand(64, 64), torch.rand(64, 1)
        graph = trace(chain, *inputs).graph
        before = str(graph)
        own = Options(seconds=60.0, **options)  # a busy machine takes longer than an idle one
        setting = Setting(own, False, "cpu", 1, repr(own))
        report = optimize(graph, setting, GraphInputs(frozenset(), inputs))
        assert report.changed == (str(graph) != before)
        return report

    return plan


def raced(monkeypatch, before, after):
    """In place of compiled graphs: a contest of graphs that take ``before`` and ``after`` ms."""

    def race(graphs, *_):
        for _ in graphs:
            count_timing("graph")
        return Contest((before[0], after[0]), (tuple(before), tuple(after)))

    monkeypatch.setattr(acceptance, "race", race)


def test_the_faster_graph_stays(planned, monkeypatch):
    raced(monkeypatch, [1.0, 1.1], [2.0, 2.1])
    report = planned(measure=True)
    assert not report.changed and report.decision == "left as it is: the original graph is faster"
    assert "measured 1.000 ms before, 2.000 ms after: the original graph is faster" in str(report)


def test_a_race_agrees_with_the_table(planned, monkeypatch):
    raced(monkeypatch, [2.0, 2.1], [1.0, 1.1])
    report = planned(measure=True)
    assert report.changed and report.race.winner == "rewritten"


@pytest.mark.slow
def test_what_noise_hides_is_left_to_the_table(planned, monkeypatch):
    raced(monkeypatch, [2.0, 1.0], [1.9, 1.1])
    report = planned(measure=True)
    assert report.changed and report.race.winner == ""
    assert "undecided (the difference is within the noise)" in str(report)
    assert not planned(measure=True, min_saving=1.0).changed


@pytest.mark.slow
def test_a_small_saving_that_is_measured_is_taken(planned, monkeypatch):
    raced(monkeypatch, [2.0, 2.1], [1.0, 1.1])
    assert not planned(min_saving=1.0).changed
    assert planned(measure=True, min_saving=1.0).changed


@pytest.mark.parametrize("error", [NoRaceError("the graph has symbolic sizes"), RuntimeError("no compiler\nhere")])
def test_where_a_race_fails_the_original_stays(planned, monkeypatch, caplog, error):
    """Who asks for times does not want a prediction to decide. Another process tries again."""

    def race(*_):
        raise error

    monkeypatch.setattr(acceptance, "race", race)
    report = planned(measure=True)
    (line,) = [r.getMessage() for r in caplog.records if "cannot be timed" in r.getMessage()]
    assert not report.changed and str(error).partition("\n")[0] in line and "\n" not in line
    assert "not measured (" in str(report) and "it could not be timed (" in report.decision
    raced(monkeypatch, [2.0, 2.1], [1.0, 1.1])
    again = planned(measure=True)
    assert again.changed and again.from_plan


def test_a_warm_start_times_nothing(planned, monkeypatch):
    raced(monkeypatch, [1.0, 1.1], [2.0, 2.1])
    first = planned(measure=True)
    assert timings() > 0 and not first.from_plan
    reset()
    again = planned(measure=True)
    assert timings() == 0 and again.from_plan and again.race == first.race and again.decision == first.decision


@pytest.mark.slow
def test_a_stored_plan_that_cannot_be_carried_out_is_made_anew(planned, monkeypatch, caplog):
    """Also once the graph itself was changed, and put back."""
    planned()
    rebuild, calls = job.rebuild, []

    def failing(*arguments, **options):
        added = rebuild(*arguments, **options)
        calls.append(added)
        if len(calls) == 2:  # the first was a trial on a copy
            raise ValueError("no")
        return added

    monkeypatch.setattr(job, "rebuild", failing)
    report = planned()
    assert len(calls) > 2 and report.changed and not report.from_plan
    assert [r.getMessage() for r in caplog.records if "is made anew: no" in r.getMessage()]


def test_nothing_is_timed_while_a_search_runs(planned, monkeypatch):
    counts = []
    ask = WorkerPool.map

    def watched(self, requests, until):
        before = timings()
        answers = ask(self, requests, until)
        counts.append(timings() - before)
        return answers

    monkeypatch.setattr(WorkerPool, "map", watched)
    planned()
    assert timings() > 0 and counts and not any(counts)


def test_the_search_could_not_time_anything():
    code = (
        "import sys; import torch_eqsat.search.worker.process, torch_eqsat.rewrites; sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


@pytest.mark.slow
def test_processes_plan_alike_without_timing():
    """Of two processes that hash differently the second finds another key: no plan is shared."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, key], env={**environment, "PYTHONHASHSEED": key},
            stdout=subprocess.PIPE, text=True,
        )
        for key in ("1", "2")
    ]  # fmt: skip
    texts = [process.communicate()[0] for process in processes]
    assert texts[0] == texts[1]
    from_plan, base, best, timed = texts[0].split(" [")[0].split()
    assert from_plan == "False" and float(best) < float(base) and timed == "0"


@pytest.mark.slow
def test_deterministic_plans_keep_what_the_table_knows(planned):
    planned(deterministic=True)
    assert timings() == 0
    measured = planned()
    assert timings() > 0
    reset()
    known = planned(deterministic=True, seed=1)
    assert timings() == 0 and known.base_ms == pytest.approx(measured.base_ms)


def test_a_plan_for_another_machine_is_not_run_here(planned):
    report = planned(target="H100")
    assert not report.changed and timings() == 0
    assert 0 < report.best_ms < report.base_ms
    assert "the plan is for H100, at estimated prices" in str(report) and "estimated for H100:" in str(report)


def test_a_device_without_prices(trace):
    graph = trace(chain, torch.rand(64, 64), torch.rand(64, 64), torch.rand(64, 1)).graph
    before = str(graph)
    report = optimize(graph, Setting(Options(), False, "xpu", 1, "key"), GraphInputs(frozenset(), ()))
    assert report.decision == "left as it is: device xpu is not supported (cpu, cuda are)"
    assert str(graph) == before
