"""Shapes, layouts and dtypes of inputs, and graphs out of the ordinary."""

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from tests.end_to_end.models import Folding, assert_close, compiled, frozen, interpreted, only_report

pytestmark = pytest.mark.usefixtures("fresh")
slow = pytest.mark.slow


@slow
def test_dynamic_shapes():
    model = Folding(inside=32, outside=8).eval()
    fast = compiled(model, dynamic=True)
    with torch.no_grad():
        for batch in (3, 5, 7):
            x = torch.rand(batch, 8)
            assert_close(fast(x), model(x))
    assert counters["stats"]["unique_graphs"] == 1


@slow
@pytest.mark.parametrize(
    "verify",
    [
        False,
        True,
    ],
)
def test_rewriting_beside_dynamic_shapes(verify):
    """Sizes of weights are static although the batch is not; the check of the rewrite must not pin the batch."""

    def function(x, a, b, c):
        return x @ ((a @ b) @ c) + 1

    weights = [torch.rand(512, 512), torch.rand(512, 512), torch.rand(512, 1)]
    fast = interpreted(function, **{"eqsat.judge": verify})
    with torch.no_grad():
        for batch in (3, 5, 7):
            x = torch.rand(batch, 512)
            torch._dynamo.mark_dynamic(x, 0)
            torch.testing.assert_close(fast(x, *weights), function(x, *weights), rtol=1e-4, atol=1e-1)
    assert only_report().changed
    assert counters["stats"]["unique_graphs"] == 1


@slow
def test_channels_last():
    layers = nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.Conv2d(8, 4, 1)
    model = nn.Sequential(*layers).eval().to(memory_format=torch.channels_last)
    x = torch.rand(2, 8, 9, 9).to(memory_format=torch.channels_last)
    with torch.no_grad():
        actual, expected = frozen(model)(x), model(x)
    assert_close(actual, expected)
    assert actual.stride() == expected.stride()


@slow
def test_autocast():
    model, x = Folding().eval(), torch.rand(32, 64)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        actual, expected = frozen(model)(x), model(x)
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual, expected, rtol=3e-2, atol=3e-2)


@slow
def test_integer_inputs_and_embedding():
    model = nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, 4)).eval()
    index = torch.randint(0, 20, (3, 7))
    with torch.no_grad():
        assert_close(frozen(model)(index), model(index))


@slow
def test_in_place_changes_of_inputs():
    def function(x, buffer):
        buffer.mul_(0.5).add_(x.sum(0))
        return (x + buffer).relu_()

    x, buffer, buffer_eager = torch.rand(4, 8), torch.ones(8), torch.ones(8)
    fast = compiled(function)
    for _ in range(2):
        assert_close(fast(x, buffer), function(x, buffer_eager))
        assert_close(buffer, buffer_eager)


@slow
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum() + 1,
        lambda x: torch.arange(5) * 2,
        lambda x: x.shape[0] + x.view(-1)[:0],
        lambda x: x[0, 0] + 1,
    ],
    ids=["number", "constant", "empty", "element"],
)
def test_unusual_graphs(function):
    x = torch.rand(3, 4)
    assert_close(compiled(function)(x), function(x))


@slow
def test_graph_of_numbers_alone():
    x = torch.tensor(2.0)
    assert_close(compiled(lambda x: x.sin() * 2)(x), x.sin() * 2)
