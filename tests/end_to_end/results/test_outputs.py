"""Outputs share memory and have strides as without the backend."""

from types import SimpleNamespace

import pytest
import torch

from tests.end_to_end.models import compiled, interpreted, only_report
from torch_eqsat.ir.builder import Builder, GraphStore, Handle
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.planning.plans.plan import Plan

pytestmark = pytest.mark.usefixtures("fresh")
slow = pytest.mark.slow


@slow
def test_several_and_shared_outputs():
    def function(x, a, b):
        y = (x @ a) @ b
        return y, [y, y + 1], x, {"z": x @ a}

    inputs = torch.rand(64, 32), torch.rand(32, 64), torch.rand(64, 2)
    actual, expected = compiled(function)(*inputs), function(*inputs)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)


def forked(x, a, b):
    return x.sin(), x.sin(), (x @ a) @ b


def three_products(x, a, b, c):
    return x @ a, x @ b, x @ c


@slow
def test_equal_outputs_stay_apart():
    first, second, _ = compiled(forked)(torch.rand(256, 256), torch.rand(256, 256), torch.rand(256, 2))
    assert only_report().changed
    first.zero_()
    assert second.abs().max() > 0


@slow
def test_outputs_keep_their_strides(monkeypatch):
    monkeypatch.setattr("torch_eqsat.planning.pipeline.search_regions", merge_products)
    inputs = torch.rand(4, 64), torch.rand(64, 32), torch.rand(64, 32), torch.rand(64, 32)
    actual, expected = compiled(three_products)(*inputs), three_products(*inputs)
    assert only_report().changed
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)
    assert [y.stride() for y in actual] == [y.stride() for y in expected]


def merge_products(task, *_):
    """A plan for three_products: one product, cut in three."""
    graph = TermGraph()
    t = Builder(GraphStore(graph))
    x, *weights = [
        Handle(graph.add(node, type_, False), type_)
        for node, type_ in zip(task.graph.nodes, task.graph.types, strict=True)
        if node.op == "input"
    ]
    merged = t.matmul(x, t.cat(weights, 1))
    graph.roots = [t.slice(merged, 1, 32 * i, 32 * i + 32).id for i in range(3)]
    origin = [i if node.op == "input" else -1 for i, node in enumerate(graph.nodes)]
    made = Plan(1.0, 0.1, (), graph, tuple(origin))
    return SimpleNamespace(groups=["all"], plan=lambda groups: made)


@slow
def test_views_of_a_rewritten_output():
    def function(x, a, b):
        y = (x @ a) @ b
        return y, y.t(), y[1:]

    y, turned, part = compiled(function)(torch.rand(256, 256), torch.rand(256, 256), torch.rand(256, 2))
    assert only_report().changed
    y.fill_(7.0)
    assert (turned == 7.0).all() and (part == 7.0).all()


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("function", [lambda x: x / 3 * 3, lambda x: 0.5 * x + 0.5 * x, lambda x: (x * 1) / 3 * 3])
def test_what_becomes_an_input_is_a_copy_of_it(function, dynamic):
    """x / 3 · 3 became x · 1, which Inductor takes away: a write into the result changed the input."""
    x = torch.rand(3, 4)
    with torch.no_grad():
        y = interpreted(function, dynamic=dynamic)(x)
    before = x.clone()
    y.fill_(7.0)
    torch.testing.assert_close(x, before)
