"""Calls that round numbers which then decide something."""

import pytest
import torch

from torch_eqsat.graph.aten.deciding import deciding

X = torch.rand(4, 6)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda x: torch.floor(x / 41), {"div"}),
        (lambda x: torch.floor(x * 2.0 / 41) * 41, {"mul", "div"}),
        (lambda x: (x / 41).long(), {"div"}),
        (lambda x: (x.view(6, 4) * 3.0 + 1.0).T > 0.5, {"mul", "add"}),
        (lambda x: (x > 0).float().mean(-1) >= 0.5, {"mean"}),
        (lambda x: torch.where((x + torch.arange(6)) / 7 == 1, x, -x), {"add", "div"}),
        (lambda x: (x.square().sum(-1).sqrt() < 5) * x.mean(), {"pow", "sum", "sqrt"}),
        (lambda x: (x[:, :3] * 0.1).argmax(-1), {"mul"}),
        (lambda x: torch.conv2d(x.view(1, 1, 4, 6), torch.ones(1, 1, 3, 3)) / 2 == 3, {"convolution", "div"}),
        (lambda x: torch.conv2d((x > 0.5).float().view(1, 1, 4, 6), torch.ones(1, 1, 3, 3)) == 3, {"convolution"}),
        (lambda x: torch.floor(torch.nn.functional.max_pool2d(x[None], 2) * 2.0 / 41), {"mul", "div"}),
        (lambda x: torch.floor(torch.cummax(x / 41, -1)[0]), {"div"}),
        (lambda x: torch.floor(torch.where((x >= 0) & (x < 9), x / 41, x)), {"div"}),
        (lambda x: torch.floor(82 / (1 / x) * 0.5), {"reciprocal", "mul"}),
        (lambda x: torch.nn.functional.avg_pool2d(x[None], 3, 1) == 1, {"avg_pool2d"}),
    ],
)
def test_exact_numbers_that_decide(trace, function, names):
    found = deciding(trace(function, X).graph)
    assert {node.target.overloadpacket.__name__ for node in found} == names


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.relu(x / 41 + 1),
        lambda x: torch.floor(x @ x.T / 41),
        lambda x: torch.floor(torch.exp(x) / 41),
        lambda x: torch.argmax(x @ x.T + x.sum(), -1) == 2,
        lambda x: ((x @ x.T) > 0).float() == x[:, :4],
        lambda x: torch.logsumexp(x @ x.T, -1),
        lambda x: torch.isfinite(x @ x.T),
        lambda x: torch.relu(x @ x.T).nan_to_num() @ x,
        lambda x: x @ x.T == (x @ x.T).amax(-1, keepdim=True),
        lambda x: (torch.floor(x) + 1) * x,
        lambda x: (x - x.mean()) * torch.rsqrt(x.var() + 1e-5) > 0,
    ],
    ids=[
        "nothing decides",
        "a product",
        "the largest product",
        "accuracy",
        "a sum of exponentials",
        "tests for infinity",
        "a guard against NaN",
        "places of the largest",
        "an exponential",
        "behind what decided",
        "a norm",
    ],
)
def test_numbers_that_are_rounded_anyway(trace, function):
    assert not deciding(trace(function, X).graph)


def test_a_call_that_is_equal_to_one_that_decides(trace):
    """Both are one term, so that what the first may do, the second does too."""

    def function(x):
        return torch.tanh(x * 2.0 / 41.0), torch.floor(x * 2.0 / 41.0)

    graph = trace(function, X).graph
    assert len(deciding(graph)) == sum(node.op == "call_function" for node in graph.nodes) - 2
