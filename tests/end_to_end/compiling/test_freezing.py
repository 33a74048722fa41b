"""Weights that are frozen, and those that change all the same."""

import copy

import pytest
import torch
from torch import nn

from tests.end_to_end.models import Folding, Small, assert_close, frozen, only_report

pytestmark = pytest.mark.usefixtures("fresh")
slow = pytest.mark.slow


@slow
def test_frozen_parameter_that_is_replaced():
    model, x = Folding().eval(), torch.rand(32, 64)
    fast = frozen(model)
    with torch.no_grad():
        fast(x)
        model[0].weight = nn.Parameter(torch.rand_like(model[0].weight))
        assert_close(fast(x), model(x))
        model.to(torch.float64)
        assert_close(fast(x.double()), model(x.double()))


@slow
def test_grad_mode_is_switched():
    model, x = Folding().eval(), torch.rand(32, 64)
    fast = frozen(model)
    with torch.no_grad():
        assert_close(fast(x), model(x))
    y = fast(x)
    y.sum().backward()
    gradient = model[0].weight.grad.clone()
    model.zero_grad()
    model(x).sum().backward()
    assert_close(gradient, model[0].weight.grad)
    with torch.no_grad():
        assert_close(fast(x), model(x))


@slow
def test_running_statistics_under_freezing():
    model, x = Small().train(), torch.rand(4, 3, 8, 8)
    eager = copy.deepcopy(model)
    fast = frozen(model)
    with torch.no_grad():
        for _ in range(3):
            assert_close(fast(x), eager(x))
    for a, b in zip(eager.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(b, a)


@slow
def test_weight_among_the_outputs():
    class Returning(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = Folding()

        def forward(self, x):
            return self.layers(x), self.layers[0].weight, self.layers[1].weight * 2

    model, x = Returning().eval(), torch.rand(32, 64)
    with torch.no_grad():
        actual = frozen(model)(x)
        assert_close(actual, model(x))
    assert actual[1] is model.layers[0].weight


@slow
def test_tied_weights():
    model, x = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)).eval(), torch.rand(8, 64)
    model[1].weight = model[0].weight
    with torch.no_grad():
        assert_close(frozen(model)(x), model(x))


@slow
def test_freezing_without_weights():
    """What a forward makes of numbers alone is computed once: a mask of shifted windows took 2.4 ms, 0.6 without."""

    def masked(x):
        mask = x.new_zeros(4, 6)
        mask[:2, 1:] = 3
        return x + mask.masked_fill(mask == 0, -100.0)

    with torch.no_grad():
        torch.testing.assert_close(frozen(masked)(torch.ones(4, 6)), masked(torch.ones(4, 6)))
    assert only_report().frozen and only_report().folded == 1


@slow
def test_module_with_buffers_of_no_axes():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 64)
            self.register_buffer("scale", torch.tensor(0.5))

        def forward(self, x):
            return self.linear(x * self.scale) * self.scale

    model, x = Scaled().eval(), torch.rand(8, 64)
    with torch.no_grad():
        assert_close(frozen(model)(x), model(x))


@slow
def test_marked_inputs_are_no_weights():
    model, x = Folding().eval(), torch.rand(32, 64)
    torch._dynamo.mark_static_address(x)
    with torch.no_grad():
        function = frozen(model)
        function(x)
        x.fill_(0.5)
        assert_close(function(x), model(x))


@slow
def test_returned_constants_are_fresh():
    class Positions(nn.Linear):
        def forward(self, x):
            return super().forward(x), torch.arange(8)

    model, x = Positions(8, 8).eval(), torch.rand(2, 8)
    with torch.no_grad():
        function = frozen(model)
        function(x)[1].add_(1)
        assert function(x)[1].tolist() == list(range(8))
