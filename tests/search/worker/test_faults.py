"""What may happen to a worker, and that it never costs more than its region and its time."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.errors import WorkerError
from torch_eqsat.laws.law import law
from torch_eqsat.laws.transfer import ship
from torch_eqsat.search.limits import Limits, StopReason
from torch_eqsat.search.worker.channel import MAGIC
from torch_eqsat.search.worker.client import WorkerClient
from torch_eqsat.search.worker.messages import SearchRequest
from torch_eqsat.search.worker.pool import answer_with

MEMORY = 2 << 30


@pytest.fixture
def request_(task_of):
    task = task_of(lambda x, a, b: (x @ a) @ b, (512, 256), (256, 512), (512, 4))
    return SearchRequest(task, Pricing(frozen=False), Limits(seconds=60.0))


@pytest.fixture
def large(request_):
    """A request that no pipe holds."""
    return replace(request_, user_laws=(("padding", bytes(1 << 20)),))


@pytest.fixture
def interpreter(tmp_path, monkeypatch):
    """Makes a script the interpreter that workers are started with."""

    def install(text: str) -> None:
        script = tmp_path / "python"
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    return install


def test_what_is_printed_at_start_is_no_message(request_, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import sys; print('hello'); print('there', file=sys.stderr)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with WorkerClient(MEMORY) as worker:
        assert worker.ask(request_, 60.0).stop is StopReason.SATURATED


def test_a_program_that_is_no_worker_and_does_not_read(large, interpreter):
    interpreter("exec sleep 1000")
    with WorkerClient(MEMORY) as worker:
        with pytest.raises(WorkerError, match="in time"):
            worker.ask(large, 0.5)
        assert worker._process is None


@pytest.mark.slow
def test_a_worker_that_stops_reading(large, interpreter):
    """The write of a request had no deadline."""
    say = f"import os, sys, time; os.write(int(sys.argv[6]), {MAGIC!r}); time.sleep(1000)"
    interpreter(f'exec {sys.executable} -c "{say}" "$@"'.replace("\\n", "\\\\n"))
    with WorkerClient(MEMORY) as worker, pytest.raises(WorkerError, match="in time"):
        worker.ask(large, 5.0)


def test_a_worker_that_is_late_is_no_failure_of_its_own(request_, interpreter):
    interpreter("exec sleep 1000")
    with WorkerClient(MEMORY) as worker:
        outcome = answer_with(worker, request_, 0.5)
    assert outcome.transient and outcome.stop is StopReason.LATE and "in time" in outcome.reason


@pytest.mark.parametrize("text", ["exit 3", "exec cat /dev/null", "kill -9 $$"])
def test_a_program_that_ends_at_once_is_given_up(request_, interpreter, text):
    interpreter(text)
    with WorkerClient(MEMORY) as worker:
        outcome = answer_with(worker, request_, 60.0)
    assert outcome.transient and outcome.stop is StopReason.FAILED and "died (exit code" in outcome.detail
    assert outcome.program.cost == outcome.base_cost


def test_an_interpreter_that_is_missing(request_, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with WorkerClient(MEMORY) as worker:
        outcome = answer_with(worker, request_, 60.0)
    assert outcome.transient and outcome.stop is StopReason.FAILED and "could not be started" in outcome.detail


@pytest.fixture
def kills(monkeypatch):
    """Kills the worker's process when its answers are waited for, a number of times."""

    def install(times: int) -> list[int]:
        answer = WorkerClient._answer
        killed: list[int] = []

        def watched(client, channel, deadline, found):
            if len(killed) < times:
                killed.append(client._process.pid)
                os.kill(client._process.pid, signal.SIGKILL)
            return answer(client, channel, deadline, found)

        monkeypatch.setattr(WorkerClient, "_answer", watched)
        return killed

    return install


def test_a_worker_that_dies_is_started_once_more(request_, kills):
    killed = kills(1)
    with WorkerClient(MEMORY) as worker:
        outcome = worker.ask(request_, 60.0)
        assert worker._process.pid not in killed
    assert outcome.stop is StopReason.SATURATED and not outcome.transient


def test_a_worker_that_dies_twice_is_given_up(request_, kills):
    killed = kills(9)
    with WorkerClient(MEMORY) as worker, pytest.raises(WorkerError, match="exit code -9"):
        worker.ask(request_, 60.0)
    assert len(killed) == 2


def test_no_time_is_left_to_start_it_again(request_, kills):
    killed = kills(9)
    short = replace(request_, limits=Limits(seconds=1e-3))
    with WorkerClient(MEMORY) as worker, pytest.raises(WorkerError, match="exit code -9"):
        worker.ask(short, 60.0)
    assert len(killed) == 1


def endless(t, a, b, c):
    """(A B) C = A (B C), looked for without end"""
    while True:
        pass


def test_a_step_that_looks_at_no_clock_ends_with_what_is_known(request_):
    """It ran until the worker was stopped, and all that had been found was lost."""
    (own,) = law("matmul(matmul(a, b), c)", example="matmul(matmul([2, 3], [3, 4]), [4, 5])")(endless)
    request = replace(request_, limits=Limits(seconds=0.5), user_laws=ship([own]), disabled=frozenset({"matmul"}))
    with WorkerClient(MEMORY) as worker:
        outcome = worker.ask(request, 60.0)
        assert outcome.stop is StopReason.TIME and not outcome.transient
        assert worker.ask(request_, 60.0).stop is StopReason.SATURATED  # it is the same worker, and well


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


PARENT = """
import sys, time
from torch_eqsat.search.worker.client import WorkerClient
worker = WorkerClient(2 << 30)
worker._start(time.monotonic() + 60)
print(worker._process.pid, flush=True)
time.sleep(600)
"""


def test_no_worker_outlives_its_parent():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT], env=environment, stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    assert is_running(worker)
    parent.kill()
    parent.communicate()
    end = time.monotonic() + 60.0
    while is_running(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_running(worker)
