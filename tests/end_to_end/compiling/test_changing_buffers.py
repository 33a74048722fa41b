"""Frozen models with buffers that change all the time."""

import copy

import pytest
import torch
from torch import nn

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh")]
SETTINGS = {"freezing": True, "eqsat.seconds": 2, "eqsat.measure_seconds": 0, "force_disable_caches": True}


class Counting(nn.Module):
    """Writes into a buffer in each call."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls.add_(1)
        return self.linear(x) * self.calls


def test_what_a_model_writes_itself_does_not_compile_it_again():
    model, x = Counting().eval(), torch.rand(4, 8)
    reference = copy.deepcopy(model)
    compiled = torch.compile(model, backend="eqsat_mcts_eager", options=SETTINGS)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(compiled(x), reference(x), rtol=1e-4, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_a_buffer_that_is_written_and_converted():
    """It stays an input, and its dtype was not looked at any more."""
    model, x = Counting().eval(), torch.rand(4, 8)
    compiled = torch.compile(model, backend="eqsat_mcts_eager", options=SETTINGS)
    with torch.no_grad():
        compiled(x)
        model.calls.data = model.calls.double()
        before = model.calls.clone()
        torch.testing.assert_close(compiled(x), model.linear(x) * (before + 1), rtol=1e-4, atol=1e-5)


class Scheduled(nn.Module):
    """Reads a buffer that the caller moves between calls."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.register_buffer("step", torch.zeros(1))

    def forward(self, x):
        return self.second(self.first(x)) * self.step


class Averaging(Scheduled):
    """Gives its buffer a new tensor in each call."""

    def forward(self, x):
        self.step = self.step * 0.5 + x.mean(0)
        return super().forward(x)


def step_in_place(model):
    model.step.add_(1)


def step_by_another(model):
    model.step = model.step + 1


@pytest.mark.parametrize(
    ("made", "change"),
    [(Scheduled, step_in_place), (Scheduled, step_by_another), (Averaging, lambda _: None)],
    ids=["in place", "another tensor", "another in each call"],
)
def test_what_keeps_changing_is_frozen_no_more(made, change):
    """Each step compiled the model again, until Dynamo gave it up."""
    model, x = made().eval(), torch.rand(4, 8)
    compiled = torch.compile(model, backend="eqsat_mcts_eager", options=SETTINGS)
    expected = copy.deepcopy(model)
    with torch.no_grad():
        for _ in range(7):
            change(model)
            change(expected)
            torch.testing.assert_close(compiled(x), expected(x), rtol=1e-4, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 4
