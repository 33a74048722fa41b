"""Constants that are copies of smaller ones: laws see what they are copies of."""

import pytest
import torch

from torch_eqsat.graph.capture import capture


def products(x, w):
    return torch.bmm(x, w.expand(2, 3, 4))


def viewed(x, w):
    return torch.bmm(x, w[None].expand(2, 3, 4).reshape(2, 3, 4))


def converted(x, w):
    return torch.bmm(x, w.expand(2, 3, 4).to(torch.float64).to(torch.float32))


def captured(trace, function, *inputs):
    graph = trace(function, *inputs).graph
    placeholders = graph.find_nodes(op="placeholder")
    return capture(graph, {placeholders[1]}).graph


@pytest.mark.parametrize("function", [products, viewed, converted])
def test_copies_of_a_weight_are_seen(trace, function):
    graph = captured(trace, function, torch.randn(2, 5, 3), torch.randn(3, 4))
    assert "expand" in {node.op for node in graph.nodes}
    assert {t.numel for t, node in zip(graph.types, graph.nodes, strict=True) if node.op == "input"} == {12, 30}


def test_other_constants_are_cut_off(trace):
    graph = captured(trace, lambda x, w: x * (w.expand(5, 3) * 2.0), torch.randn(5, 3), torch.randn(3))
    assert "expand" not in {node.op for node in graph.nodes}


def test_a_copy_that_a_constant_is_made_of(trace):
    """It was a KeyError, and the graph was left."""

    def both(x, w):
        copies = w.expand(2, 3, 4)
        return torch.bmm(x, copies) + copies.sum(1, keepdim=True)

    graph = captured(trace, both, torch.randn(2, 5, 3), torch.randn(3, 4))
    assert "expand" in {node.op for node in graph.nodes}
