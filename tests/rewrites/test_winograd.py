"""What Winograd's laws promise beside equality: fewer products, small errors, and nothing read from afar."""

import pytest
import torch

from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.laws.example import build_example
from torch_eqsat.laws.matcher import rewrites
from torch_eqsat.rewrites import winograd
from torch_eqsat.verification.interpreter import evaluate

(FOUR,), (SIX,) = winograd.four_points, winograd.six_points
each_law = pytest.mark.parametrize("law", [FOUR, SIX], ids=lambda law: law.name)


def rewritten(law, graph, term):
    """``term`` by ``law``, and the convolution that is left."""
    new = dict(rewrites(law, graph))[term]
    (products,) = [n for n in graph.reachable([new]) if graph.nodes[n].op == "conv"]
    return new, products


def both_axes(text, law):
    """The graph, its convolution, the same by rows and the products of that; and those products by columns."""
    graph = TermGraph()
    root = build_example(text, Builder(GraphStore(graph))).id
    rows, products = rewritten(law, graph, root)
    columns, last = rewritten(law, graph, products)
    return graph, root, (rows, products), (columns, last)


@pytest.mark.parametrize(("law", "tile", "points"), [(FOUR, 2, 4), (SIX, 4, 6)], ids=["four", "six"])
def test_a_tile_of_outputs_takes_a_product_a_point(law, tile, points):
    graph, root, _, (_, products) = both_axes("conv([1, 16, 8, 8], weights(32, 16, 3, 3), padding=[1, 1])", law)
    assert graph.nodes[products]["groups"] == points**2
    assert graph.types[products].shape == (1, points**2 * 32, 8 // tile, 8 // tile)
    assert graph.types[graph.nodes[products].children[1]].shape == (points**2 * 32, 16, 1, 1)
    assert graph.types[root].shape == (1, 32, 8, 8)


def test_an_axis_that_takes_no_fewer_products_is_passed_over():
    graph = TermGraph()
    root = build_example("conv([1, 16, 2, 64], weights(16, 16, 3, 3), padding=[1, 1])", Builder(GraphStore(graph))).id
    _, products = rewritten(SIX, graph, root)
    assert graph.types[products].shape == (1, 6 * 16, 2, 16)


def values(text, law, change, seed=0):
    """The convolution itself and the same by both axes, in float32; and in float64."""
    graph, root, (rows, products), (columns, _) = both_axes(text, law)
    x, w = (n for n, node in enumerate(graph.nodes) if node.op == "input")
    generator = torch.Generator().manual_seed(seed)
    drawn = {n: torch.randn(graph.types[n].shape, generator=generator, dtype=torch.float64) for n in (x, w)}
    drawn[x] = change(drawn[x]).float().double()
    drawn[w] = drawn[w].float().double()
    single = evaluate(graph, {n: value.float() for n, value in drawn.items()}, "float32", [rows, columns])
    kept = {n: single[n] for n in (x, w)} | {products: single[columns]}
    return (
        evaluate(graph, kept, "float32", [root])[root],
        evaluate(graph, kept, "float32", [rows])[rows],
        evaluate(graph, drawn, "float64", [root])[root],
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("channels", [16, 256])
@pytest.mark.parametrize(("law", "multiple"), [(FOUR, 3), (SIX, 12)], ids=["four", "six"])
def test_errors_are_a_small_multiple_of_those_of_the_sum(law, multiple, channels, seed):
    text = f"conv([1, {channels}, 14, 14], weights(16, {channels}, 3, 3), padding=[1, 1])"
    direct, other, exact = values(text, law, torch.relu, seed)
    own, error = ((y - exact).square().mean().sqrt() for y in (direct, other))
    assert error <= multiple * own


@each_law
@pytest.mark.parametrize("place", [(4, 4), (4, 5), (5, 4), (5, 5)])
def test_what_is_not_finite_reaches_only_the_tiles_that_read_it(law, place):
    def spoilt(x):
        x[0, 3, *place] = float("inf")
        return x

    direct, other, _ = values("conv([1, 16, 16, 16], weights(16, 16, 3, 3), padding=[1, 1])", law, spoilt)
    spoilt_outputs, of_sum = (~y.isfinite()[0].all(0) for y in (other, direct))
    assert of_sum[~spoilt_outputs].sum() == 0
    rows, columns = (axis.nonzero().flatten() for axis in (spoilt_outputs.any(1), spoilt_outputs.any(0)))
    assert max(len(rows), len(columns)) <= 8
    same = ~spoilt_outputs
    torch.testing.assert_close(other[..., same], direct[..., same], atol=1e-4, rtol=1e-4)
