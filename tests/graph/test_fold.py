"""What is made of factory operators and literals alone becomes a buffer, and nothing else does."""

import pytest
import torch
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from torch_eqsat.graph import fold
from torch_eqsat.graph.fold import fold_factories

X = torch.rand(4, 6)


def written(x):
    """A mask that numbers are written to, as attention in shifted windows makes it."""
    mask = torch.zeros(4, 6)
    mask[:2, 1:] = 3
    mask[2:] = -100.0
    return x + mask.masked_fill(mask == 0, 7.0)


def positions(x):
    return x * (torch.arange(6) % 4 < 2)


def returned(x):
    return x + 1, torch.arange(6)


def returned_piece(x):
    return x + 1, torch.arange(8).split(4)[0]


def uniform(x):
    return x + torch.full((4, 6), 2.0)


def of_an_input(x):
    return x + torch.zeros_like(x).masked_fill(x > 0.5, 1.0)


def random(x):
    return x + torch.rand(6)


def graph_of(function, x=X):
    module = make_fx(functionalize(function), tracing_mode="fake")(x)
    for node in module.graph.nodes:  # a literal has a type as well
        node.meta.setdefault("val", getattr(module, node.target, None) if node.op == "get_attr" else None)
    return module


@pytest.mark.parametrize(
    ("function", "folded"),
    [(written, 1), (positions, 1), (returned, 0), (returned_piece, 0), (uniform, 0), (of_an_input, 0), (random, 0)],
)
def test_what_is_folded(function, folded):
    module = graph_of(function)
    assert fold_factories(module.graph, ()) == folded
    module.recompile()
    torch.manual_seed(1)
    expected = function(X)
    torch.manual_seed(1)
    torch.testing.assert_close(module(X), expected, rtol=0, atol=0)
    left = [node for node in module.graph.nodes if node.op == "call_function"]
    assert len(left) == 1 if folded else len(left) > 1


def test_values_on_the_way_are_limited(monkeypatch):
    monkeypatch.setattr(fold, "MOST_BYTES", 2 * 6 * 8)  # arange alone, and its remainder
    module = graph_of(positions)
    assert fold_factories(module.graph, ()) == 1
    module.recompile()
    assert torch.equal(module(X), positions(X))
    assert [n.target for n in module.graph.nodes if n.op == "call_function"] == [
        torch.ops.aten.lt.Scalar,
        torch.ops.aten.mul.Tensor,
    ]


def test_a_literal_of_the_module_stays_as_it_is():
    module = graph_of(written)
    literals = {n.target: getattr(module, n.target).clone() for n in module.graph.find_nodes(op="get_attr")}
    assert literals
    fold_factories(module.graph, ())
    assert all(torch.equal(getattr(module, name), value) for name, value in literals.items())
