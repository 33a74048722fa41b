"""What a worker may take of the time of its request."""

import pytest
import torch

from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.egraph.engine import _SPAN, Engine, Pop
from torch_eqsat.egraph.workshop import Workshop
from torch_eqsat.search.limits import Limits, StopReason
from torch_eqsat.search.parameters import SearchParameters
from torch_eqsat.search.strategies.table import OutOfTime
from torch_eqsat.search.worker import process
from torch_eqsat.search.worker.client import LEAST_SECONDS, _after_start
from torch_eqsat.search.worker.messages import SearchRequest
from torch_eqsat.search.worker.process import _most_seconds


@pytest.fixture
def request_of(task_of):
    """Makes a request for a search of so many seconds."""

    def request_of_(seconds):
        return SearchRequest(task_of(lambda x: x.relu(), (4,)), Pricing(frozen=False), Limits(seconds=seconds))

    return request_of_


def test_the_start_of_a_worker_is_part_of_the_time(request_of):
    assert _after_start(request_of(4.0), 1.0).seconds == 3.0
    assert _after_start(request_of(1.0), 5.0).seconds == LEAST_SECONDS
    assert _after_start(request_of(0.1), 5.0).seconds == 0.1


@pytest.mark.parametrize("seconds", [0.5, 4.0, 16.0])
def test_a_limit_is_kept_within_a_tenth_and_a_fifth_of_a_second(request_of, seconds):
    assert seconds < _most_seconds(request_of(seconds)) <= 1.1 * seconds + 0.2 + 1e-9


def test_grace_is_bounded():
    assert SearchParameters().grace(1000.0) == SearchParameters().evaluation_seconds


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_search_that_ends_within_a_step_back_keeps_what_it_found(task_of, monkeypatch, step):
    """Its e-graph went back once too often when it was given back, and the answer was lost."""
    steps_back = []

    def interrupted(engine):
        steps_back.append(engine)
        engine._egraph.run_program(Pop(_SPAN, 1))
        if len(steps_back) == step:
            raise OutOfTime
        engine._declared.pop()

    workshop = Workshop()
    monkeypatch.setattr(process, "_workshop", workshop)
    monkeypatch.setattr(Engine, "pop", interrupted)
    task = task_of(lambda x, a, b: torch.relu((x @ a) @ b), (512, 256), (256, 512), (512, 4))
    found = process.answer(SearchRequest(task, Pricing(frozen=False), Limits(seconds=10.0)), lambda outcome: None)
    assert steps_back and found.stop == StopReason.TIME
    assert process._workshop is not workshop
    process._workshop.close()
