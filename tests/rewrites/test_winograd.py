"""What Winograd's law promises beside equality: fewer products, no larger errors, and nothing read from afar."""

import pytest
import torch
from torch_eqsat.rewrites import winograd

from torch_eqsat.graph.evaluate import evaluate
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.rules.builder import Builder, GraphStore
from torch_eqsat.rules.example import build_example
from torch_eqsat.rules.match import rewrites

(LAW,) = winograd.window_of_three


def both_axes(text):
    """A convolution by a 3x3 window, the term with both axes rewritten, and their graph."""
    graph = TermGraph()
    root = build_example(text, Builder(GraphStore(graph))).id
    rows = dict(rewrites(LAW, graph))[root]
    below = set(graph.reachable([rows]))
    (narrower,) = [n for n in below if graph.nodes[n].op == "conv"]
    columns = dict(rewrites(LAW, graph))[narrower]
    return graph, root, rows, narrower, columns


def test_a_window_of_nine_takes_sixteen_products_for_four_outputs():
    graph, root, _, _, columns = both_axes("conv([1, 16, 8, 8], [32, 16, 3, 3], padding=[1, 1])")
    (products,) = [n for n in graph.reachable([columns]) if graph.nodes[n].op == "conv"]
    assert graph.nodes[products]["groups"] == 16
    assert graph.types[products].shape == (1, 16 * 32, 4, 4)
    assert graph.types[graph.nodes[products].children[1]].shape == (16 * 32, 16, 1, 1)
    assert graph.types[root].shape == (1, 32, 8, 8)


def values(text, change=lambda x: x):
    """The convolution itself, and the same by both axes, in float32; and in float64."""
    graph, root, rows, narrower, columns = both_axes(text)
    x, w = (n for n, node in enumerate(graph.nodes) if node.op == "input")
    generator = torch.Generator().manual_seed(0)
    drawn = {n: torch.randn(graph.types[n].shape, generator=generator, dtype=torch.float64) for n in (x, w)}
    drawn[x] = change(drawn[x]).float().double()
    drawn[w] = drawn[w].float().double()
    single = evaluate(graph, {n: value.float() for n, value in drawn.items()}, "float32", [rows, columns])
    kept = {n: single[n] for n in (x, w)} | {narrower: single[columns]}
    return (
        evaluate(graph, kept, "float32", [root])[root],
        evaluate(graph, kept, "float32", [rows])[rows],
        evaluate(graph, drawn, "float64", [root])[root],
    )


@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_errors_are_no_larger_than_those_of_the_sum(shift):
    direct, rewritten, exact = values("conv([1, 64, 9, 8], [32, 64, 3, 3], padding=[1, 1])", lambda x: x + shift)
    scale = exact.abs().max()
    own, other = ((y - exact).abs().max() / scale for y in (direct, rewritten))
    assert other <= own


def test_what_is_not_finite_reaches_no_output_whose_window_it_is_not_in():
    def spoilt(x):
        x[0, 3, 4, 5] = float("inf")
        return x

    direct, rewritten, _ = values("conv([1, 16, 9, 9], [16, 16, 3, 3], padding=[1, 1])", spoilt)
    assert torch.equal(rewritten.isfinite(), direct.isfinite())
    assert torch.allclose(rewritten[direct.isfinite()], direct[direct.isfinite()], atol=1e-4)
