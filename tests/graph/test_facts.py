"""Facts of constants, and capture that keeps them."""

import pytest
import torch

from torch_eqsat.graph.capture import capture
from torch_eqsat.graph.facts import is_modest


def facts(trace, function, *inputs):
    """What is known of the constants of a traced function."""
    graph = capture(trace(function, *inputs).graph).graph
    known = [
        {name: value for name, value in node.attrs if name not in ("name", "shape", "dtype")}
        for node in graph.nodes
        if node.op == "input"
    ]
    return [fact for fact in known if fact]


@pytest.mark.parametrize(("dtype", "found"), [(torch.float32, {"tame": 1}), (torch.float16, None)])
def test_converted_weights_are_no_masks(trace, dtype, found):
    """The running mean of a batch norm in half precision."""
    module = trace(lambda x, w: x + w.to(dtype), torch.randn(4), torch.ones(4).bfloat16())
    weights = module.graph.find_nodes(op="placeholder")[1:]
    graph = capture(module.graph, weights, modest=weights).graph
    (constant,) = [n for i, n in enumerate(graph.nodes) if n.op == "input" and graph.constant[i] and n["shape"] == (4,)
                   and n["dtype"] == str(dtype).removeprefix("torch.")]  # fmt: skip
    assert {k: v for k, v in constant.attrs if k in ("tame", "modest")} == (found or {})


def test_repeats(trace):
    assert facts(trace, lambda x: x[torch.arange(8) // 2], torch.randn(4, 3)) == [{"repeats": 2}]


def test_identity_and_zero(trace):
    assert {"eye": 1} in facts(trace, lambda v: torch.diag(v) @ torch.ones(4, 4), torch.randn(4))
    assert {"value": 0.0} in facts(trace, lambda v: torch.diag(v) @ torch.ones(4, 4), torch.randn(4))


def test_strict_upper_triangle(trace):
    assert {"upper": 1} in facts(trace, lambda x: torch.triu(x, 1), torch.randn(4, 4))
    assert {"upper": 1} not in facts(trace, lambda x: torch.triu(x), torch.randn(4, 4))


def test_uninitialised_memory_is_no_fact(trace):
    assert facts(trace, lambda x: x + torch.empty(()), torch.randn(4)) == []


def test_weights_are_no_facts(trace):
    module = trace(lambda x, w: x * w, torch.randn(4), torch.zeros(4))
    weight = module.graph.find_nodes(op="placeholder")[1]
    graph = capture(module.graph, {weight}).graph
    assert not any("value" in dict(node.attrs) for node in graph.nodes)


def test_modest_weights(trace):
    def function(x, w, gamma, variance):
        return x * w.t() + gamma * torch.rsqrt(variance + 1e-5)

    graph = trace(function, torch.randn(4, 4), torch.randn(4, 4), torch.randn(4), torch.rand(4)).graph
    weights = graph.find_nodes(op="placeholder")[1:]
    found = capture(graph, set(weights), modest=set(weights)).graph
    known = {(node["shape"], *{"modest", "tame"} & set(dict(node.attrs))) for node in found.nodes if node.op == "input"}
    assert known == {((4, 4),), ((4, 4), "modest"), ((4,), "modest"), ((4,), "tame")}
    found = capture(graph, set(weights), modest=set(weights[:2])).graph
    assert not any("tame" in dict(node.attrs) for node in found.nodes)


@pytest.mark.parametrize(
    ("value", "modest"),
    [
        (torch.randn(3), True),
        (torch.tensor([1.0, float("inf")]), False),
        (torch.tensor([float("nan")]), False),
        (torch.tensor([-1e5]), False),
        (torch.tensor([3]), False),
    ],
)
def test_modest_values(value, modest):
    assert is_modest(value) is modest
