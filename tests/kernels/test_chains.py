"""Chains of calls that become one call each, and what is left apart."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from torch_eqsat.graph.emitter import Evaluator
from torch_eqsat.graph.lowering import lower
from torch_eqsat.graph.whole import FILTER_BANK
from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.kernels.calls import JOIN_TILES, SPLIT_TILES, step_names
from torch_eqsat.kernels.joins import make_joins
from torch_eqsat.kernels.splits import make_splits
from torch_eqsat.laws.example import build_example
from torch_eqsat.laws.matcher import rewrites
from torch_eqsat.rewrites import winograd

(FOUR,), (SIX,) = winograd.four_points, winograd.six_points


class Whole(Evaluator):
    """Banks are calls, as in frozen graphs."""

    keeps_whole = True


def convolution(text, *laws):
    """``text`` by the laws, one axis each, as a function of the image and the weights; and their shapes."""
    graph = TermGraph()
    product = build_example(text, Builder(GraphStore(graph))).id
    meaning = {}
    for law in laws:
        meaning[product] = dict(rewrites(law, graph))[product]
        (product,) = [n for n in graph.reachable([meaning[product]]) if graph.nodes[n].op == "conv"]
    inputs = [n for n, node in enumerate(graph.nodes) if node.op == "input"]
    root = next(iter(meaning))

    def run(x, w):
        values = dict(zip(inputs, (x, w), strict=True))

        def value(n):
            n = meaning.get(n, n)
            if n not in values:
                node = graph.nodes[n]
                values[n] = lower(
                    Whole(), node, list(map(value, node.children)), [graph.types[c] for c in node.children]
                )
            return values[n]

        return value(root)

    return run, [graph.types[n].shape for n in inputs]


def joined(function, *shapes):
    """``function`` on channels-last images as a graph with chains joined; and its splits, joins and lone banks."""
    inputs = [torch.randn(shape) for shape in shapes]
    inputs = [x.to(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs]
    module = make_fx(function, tracing_mode="fake")(*inputs)
    expected = module(*inputs)
    make_splits(module.graph)
    make_joins(module.graph)
    module.graph.lint()
    module.recompile()
    assert all(torch.equal(a, b) for a, b in zip(module(*inputs), expected, strict=True))
    return [module.graph.find_nodes(op="call_function", target=t) for t in (SPLIT_TILES, JOIN_TILES, FILTER_BANK)]


@pytest.mark.parametrize(
    ("text", "laws"),
    [
        ("conv([1, 16, 8, 8], weights(32, 16, 3, 3), padding=[1, 1])", (SIX, SIX)),
        ("conv([2, 16, 9, 13], weights(16, 16, 3, 3), padding=[1, 1])", (SIX, SIX)),
        ("conv([2, 16, 9, 14], weights(16, 16, 3, 3), padding=[1, 1])", (SIX, FOUR)),
        ("conv([2, 16, 6, 13], weights(24, 16, 3, 3), padding=[0, 1])", (FOUR, SIX)),
        ("conv([1, 16, 9, 8], weights(16, 16, 5, 5), padding=[2, 2])", (SIX, SIX)),
        ("conv([1, 32, 10, 8], weights(32, 16, 3, 3), padding=[1, 1], groups=2)", (SIX, SIX)),
        ("conv([2, 16, 9, 13], weights(16, 16, 3, 3), padding=[1, 1])", (SIX,)),
        ("conv([2, 16, 5, 12], weights(16, 16, 1, 3), padding=[0, 1])", (SIX,)),
        ("conv([2, 16, 11, 5], weights(16, 16, 3, 1), padding=[1, 0])", (FOUR,)),
    ],
)
def test_a_convolution_is_a_split_and_a_join(text, laws):
    function, shapes = convolution(text, *laws)
    splits, joins, banks = joined(lambda x, w: [function(x, w)], *shapes)
    assert len(splits) == len(joins) == 1
    assert len(banks) == len(laws)  # those of the weights
    assert all(bank.args[2] == 0 for bank in banks)


IMAGE, VECTOR = (2, 16, 9, 13), (16, 1, 1)
PLAIN, SHAPES = convolution("conv([2, 16, 9, 13], weights(16, 16, 3, 3), padding=[1, 1])", SIX, SIX)


def names(join):
    return list(step_names(join.args[6]))


def test_what_follows_is_taken_along():
    """A bias, a batch norm, a residual and a relu, in the order in which they stand."""

    def block(x, w, other, bias, mean, scale, shift):
        return [(((PLAIN(x, w) + bias - mean) * scale + shift) + other).relu()]

    _, (join,), _ = joined(block, *SHAPES, IMAGE, *[VECTOR] * 4)
    assert names(join) == ["add", "sub", "mul", "add", "add_image", "relu"]


def test_what_is_used_elsewhere_is_stored():
    """A sum that is read twice is stored as it is."""

    def block(x, w, bias):
        before = PLAIN(x, w) + bias
        return [before.relu(), before.sigmoid()]

    _, (join,), _ = joined(block, *SHAPES, VECTOR)
    assert names(join) == ["add"]


@pytest.mark.parametrize(
    "follow",
    [
        lambda y, v: y + v[:13, 0, 0],
        lambda y, v: y + v[0],
        lambda y, v: 1 - y,
        lambda y, v: v - y,
        lambda y, v: y + y,
        lambda y, v: y + v.repeat(2, 1, 1)[::2],
        lambda y, v: torch.sub(y, v, alpha=2),
        lambda y, v: y + v.double(),
        lambda y, v: y[:1] + y,
    ],
)
def test_what_no_step_is_stays_apart(follow):
    _, (join,), _ = joined(lambda x, w, v: [follow(PLAIN(x, w), v)], *SHAPES, VECTOR)
    assert not names(join)


def test_no_more_steps_than_a_kernel_has_operands():
    def block(x, w, *vectors):
        y = PLAIN(x, w)
        for vector in vectors:
            y = y + vector
        return [y]

    _, (join,), _ = joined(block, *SHAPES, *[VECTOR] * 12)
    assert len(names(join)) == 8


BANK = (3, 1, 1, 1, [1.0, 2.0], 1)


@pytest.mark.parametrize(
    "x", [torch.randn(1, 8, 4, 4), torch.randn(1, 16, 4, 4).double(), torch.randn(16, 16, 4, 4, 2)]
)
def test_images_of_other_kinds_stay_apart(x):
    """Of few channels, of doubles, and what is no image."""
    module = make_fx(lambda x: FILTER_BANK(x, *BANK), tracing_mode="fake")(x)
    make_splits(module.graph)
    make_joins(module.graph)
    assert not module.graph.find_nodes(op="call_function", target=SPLIT_TILES)


@pytest.mark.parametrize(("pads", "value"), [([1, 0], 2.0), ([1, -1], 0.0), ([0, 0, 0, 0, 1, 1], 0.0)])
def test_other_pads_stay_calls(pads, value):
    pad = torch.ops.aten.constant_pad_nd.default
    (split,), *_ = joined(lambda x: [FILTER_BANK(pad(x, pads, value), *BANK)], (1, 16, 4, 4))
    assert split.args[0].target is pad


def test_two_banks_of_the_same_rows():
    """The sums of rows are read by two banks along columns; each becomes a split of its own."""

    def both(x):
        rows = FILTER_BANK(x, 2, 1, 2, 1, [1.0, 0.5], 1)
        return [FILTER_BANK(rows, *BANK), FILTER_BANK(rows, 3, 1, 2, 1, [1.0, -1.0], 1)]

    splits, _, banks = joined(both, (1, 16, 8, 8))
    assert len(splits) == 2
    assert not banks


def test_rows_that_are_used_otherwise_too():
    def both(x):
        rows = FILTER_BANK(x, 2, 1, 2, 1, [1.0, 0.5], 1)
        return [FILTER_BANK(rows, *BANK), rows.relu()]

    splits, _, banks = joined(both, (1, 16, 8, 8))
    assert len(splits) + len(banks) == 2
