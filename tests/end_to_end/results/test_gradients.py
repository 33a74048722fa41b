"""Right on every input: gradients that were silently wrong, refused or raised, each compared with eager.

Graphs are run by the interpreter, and planned at estimated prices, so that nothing here depends on the clock.
"""

import copy

import pytest
import torch
import torch.nn.functional as functional
from torch import nn

from tests.end_to_end.models import interpreted, last

pytestmark = pytest.mark.usefixtures("fresh")


class Attention(nn.Module):
    """The gradient of the bias of keys is zero but for rounding."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x):
        return self.out(torch.softmax(self.q(x) @ self.k(x).mT / 4, -1) @ self.v(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (Attention(), (4, 8, 16)),
        (nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Linear(16, 4)), (8, 16)),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)), (4, 3, 8, 8)),
    ],
    ids=["attention", "linear and norm", "convolution and norm"],
)
def test_gradients_that_are_zero_but_for_rounding(model, shape):
    expected, x = copy.deepcopy(model), torch.randn(shape)
    interpreted(model)(x).square().sum().backward()
    expected(x).square().sum().backward()
    assert not last().refused
    for actual, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, wanted.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_one_weight_in_both_directions():
    """A product of the forward graph joined with one of the backward graph cannot be cut apart again."""
    weight, x = nn.Parameter(torch.randn(16, 32) * 0.1), torch.randn(8, 16)

    def autoencoder(x):
        return torch.relu(x @ weight) @ weight.T

    interpreted(autoencoder, **{"eqsat.strict": True})(x).square().sum().backward()
    gradient, weight.grad = weight.grad, None
    autoencoder(x).square().sum().backward()
    torch.testing.assert_close(gradient, weight.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_indices_of_a_table_of_one_row():
    table, first, second = nn.Embedding(1, 16), torch.randn(16, 16), torch.randn(16, 16)

    def function(x, i):
        return functional.linear(x, first) + functional.linear(x, second) + table(i)

    x, i = torch.randn(8, 16, requires_grad=True), torch.zeros(8, dtype=torch.long)
    interpreted(function, **{"eqsat.strict": True})(x, i).sum().backward()
    assert last().changed
