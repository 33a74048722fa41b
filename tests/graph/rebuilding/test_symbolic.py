"""What was made of a graph with numbers in place of symbols, carried back."""

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from torch_eqsat.graph.calls import SYMBOLIC_NUMBER
from torch_eqsat.graph.emitter import aten
from torch_eqsat.graph.rebuilding.symbolic import carry_back, symbols_of, with_numbers


def test_an_axis_is_no_size():
    """Where 5 stood for a batch, the axis 5 of a new permutation became the batch, and the graph was refused."""
    graph = make_fx(lambda x: torch.sin(x), tracing_mode="symbolic")(torch.ones(6, 2, 2, 2, 2, 3)).graph
    batch = next(iter(symbols_of(graph)))
    static = with_numbers(
        graph, {symbol: 5 if symbol is batch else 11 + n for n, symbol in enumerate(symbols_of(graph))}
    )
    (sine,) = static.graph.find_nodes(op="call_function", target=aten.sin.default)
    (x,) = sine.all_input_nodes
    with static.graph.inserting_before(sine):
        turned = static.graph.call_function(aten.permute.default, (x, [0, 1, 2, 3, 5, 4]))
        back = static.graph.call_function(aten.permute.default, (turned, [0, 1, 2, 3, 5, 4]))
    turned.meta["val"] = aten.permute.default(x.meta["val"], [0, 1, 2, 3, 5, 4])
    back.meta["val"] = x.meta["val"]
    sine.replace_input_with(x, back)
    carry_back(graph, static)
    assert [n.args[1] for n in graph.find_nodes(op="call_function", target=aten.permute.default)] == [
        [0, 1, 2, 3, 5, 4]
    ] * 2


def test_steps_along_a_symbolic_axis_are_opaque():
    """Rows of two elements are not the same part of an axis of 7 and of one of 6."""
    function = lambda x, y: (x[1::2], y[:, 1::2])  # noqa: E731
    graph = make_fx(function, tracing_mode="symbolic")(torch.ones(8, 3), torch.ones(8, 3)).graph
    static = with_numbers(graph, {symbol: 7 + 4 * n for n, symbol in enumerate(symbols_of(graph))})
    slices = static.graph.find_nodes(op="call_function", target=aten.slice.Tensor)
    assert [SYMBOLIC_NUMBER in n.meta for n in slices if len(n.args) == 5] == [True, True]
