"""Graphs decided under a failure that may pass: used, told about once, and searched again by the next process."""

import logging
import math
import signal
import sys

import pytest
import torch
from torch._dynamo.utils import counters

from torch_eqsat.backend import reset
from torch_eqsat.cost.measure import kernels
from torch_eqsat.counters import COUNTERS
from torch_eqsat.errors import MeasurementError, TransientError
from torch_eqsat.options import Options
from torch_eqsat.planning.disturbance import note_disturbance
from torch_eqsat.planning.pipeline import optimize
from torch_eqsat.planning.plans.plan_store import plan_path
from torch_eqsat.planning.setting import Setting
from torch_eqsat.planning.verdict import GraphInputs
from torch_eqsat.report import RegionReport
from torch_eqsat.search.worker.client import WorkerClient


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EQSAT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernels, "_REFUSED", math.inf)  # this machine may be busy too
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    reset()
    yield
    reset()
    torch.set_num_threads(threads)


@pytest.fixture
def planned(trace, caplog):
    """Plans a chain of products that pays to rewrite; the report, the lines of the log and the stored plan's path."""

    def plan(**options):
        inputs = torch.rand(64, 64), torch.rand(64, 64), torch.rand(64, 1)
        graph = trace(lambda x, a, b: (x @ a) @ b, *inputs).graph
        own = Options(seconds=5.0, **options)
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="torch_eqsat"):
            report = optimize(graph, Setting(own, False, "cpu", 1, "key"), GraphInputs(frozenset(), inputs))
        return report, [record.getMessage() for record in caplog.records], plan_path(report.plan_key)

    return plan


def check_disturbed(planned, reason, said=1):
    report, lines, path = planned()
    assert not path.exists() and reason in report.disturbed and not report.from_plan
    assert len(lines) == said and reason in lines[-1] and "\n" not in lines[-1] and "not stored" in lines[-1]
    assert counters[COUNTERS]["transient"] == 1
    assert reason in str(report)


def check_tried_again(planned):
    report, lines, path = planned()
    assert path.exists() and report.changed and not report.from_plan and not report.disturbed and not lines
    assert planned()[0].from_plan


@pytest.mark.slow
@pytest.mark.usefixtures("no_kept_workers")
def test_a_worker_that_cannot_start(planned, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/bin/true")
        check_disturbed(planned, "the search worker died (exit code 0)")
        with pytest.raises(TransientError, match="died"):
            planned(strict=True)
    check_tried_again(planned)


@pytest.mark.slow
def test_a_busy_machine(planned, monkeypatch):
    def measure(kernel, timer):
        raise MeasurementError("let the machine do less besides")

    with monkeypatch.context() as patch:
        patch.setattr(kernels, "measure", measure)
        check_disturbed(planned, "(MeasurementError: let the machine do less besides)")
        with pytest.raises(TransientError, match="kernels could not be timed"):
            planned(strict=True)
    check_tried_again(planned)


def test_a_kernel_that_is_timed_at_the_second_try_did_not_fail(planned, monkeypatch):
    measure, failed = kernels.measure, set()

    def at_second_try(kernel, timer):
        if kernel.key not in failed:
            failed.add(kernel.key)
            raise MeasurementError("busy")
        return measure(kernel, timer)

    monkeypatch.setattr(kernels, "measure", at_second_try)
    report, _, _ = planned()
    assert failed and not failed <= report.kernels_failed.keys()


def test_kernels_that_cannot_run_are_no_disturbance(planned, monkeypatch):
    def measure(kernel, timer):
        raise NotImplementedError("no such kernel here")

    monkeypatch.setattr(kernels, "measure", measure)
    report, _, path = planned()
    assert path.exists() and not report.disturbed


@pytest.mark.slow
def test_an_interrupt(planned, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    answer, once = WorkerClient._answer, [True]

    def interrupted(client, channel, deadline, found):
        if once:
            once.pop()
            signal.raise_signal(signal.SIGINT)
        return answer(client, channel, deadline, found)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(WorkerClient, "_answer", interrupted)
            check_disturbed(planned, "interrupted", said=2)  # at once, and when it is over
    finally:
        signal.signal(signal.SIGINT, before)
    check_tried_again(planned)


@pytest.mark.parametrize("options", [{"nodes": 8}, {"simulations": 1}, {"measure_seconds": 0.0}])
def test_limits_are_no_failures(planned, options):
    report, lines, path = planned(**options)
    assert path.exists() and not report.disturbed and not lines


def test_reasons_are_counted_by_region():
    stops = [("died\nbadly", True), ("time", False), ("died\nbadly", True)]
    rows = [RegionReport(1, 2, 1.0, 1.0, 0.0, {}, stop, 1, 9, 0.1, transient) for stop, transient in stops]
    what = note_disturbance(rows, {"a": "busy", "b": "busy"}, strict=False)
    assert what == "died (in 2 of 3 regions); 2 kernels could not be timed, the first a (busy)"
    assert note_disturbance(rows[1:2], {}, strict=True) == ""
