"""When the assumptions of laws hold."""

import pytest

from torch_eqsat.egraph.egraph import EGraph
from torch_eqsat.errors import LawError
from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.laws.assumptions import EVERYTHING, GRANTED
from torch_eqsat.laws.example import build_example
from torch_eqsat.laws.law import law
from torch_eqsat.laws.matcher import rewrites
from torch_eqsat.verification.laws import law_named


def fires(name, text, granted=GRANTED):
    """Whether the law fires on a term, alone and in an e-graph."""
    graph = TermGraph()
    graph.roots = [build_example(text, Builder(GraphStore(graph))).id]
    egraph = EGraph([law_named(name)], granted=granted)
    try:
        egraph.load(graph)
        inside = bool(egraph.apply([law_named(name)]).fired)
    finally:
        egraph.close()
    assert inside == bool(rewrites(law_named(name), graph, granted))
    return inside


@pytest.mark.parametrize(
    ("name", "refused", "known", "assumed"),
    [
        (
            "groups_are_joined",
            "conv([1, 4, 5], [4, 2, 3], groups=2)",
            "conv(convert(booleans(1, 4, 5), dtype='float32'), [4, 2, 3], groups=2)",
            "all_finite",
        ),
        (
            "shift_through_matmul",
            "matmul(add([5, 3], [3]), [3, 4])",
            "matmul(add(matmul([5, 2], [2, 3]), [3]), [3, 4])",
            "no_cancellation",
        ),
        (
            "common_addend_cancels",
            "add(add([4, 3], c := [4, 1]), mul(add([4, 1], c), -1))",
            "add(add([4, 3], c := sigmoid([4, 1])), mul(add([4, 1], c), -1))",
            "no_mask",
        ),
        (
            "matmul_is_associative",
            "matmul(matmul(convert([2, 3], dtype='float16'), b := convert([3, 4], dtype='float16')), "
            "convert([4, 5], dtype='float16'))",
            "matmul(matmul([2, 3], [3, 4]), [4, 5])",
            "no_overflow",
        ),
        (
            "operation_associates[mul]",
            "mul(mul([4], 1e20), 1e20)",
            "mul(mul([4], 1e6), 1e-9)",
            "no_overflow",
        ),
        (
            "matmul_is_associative",
            "matmul(matmul(convert([2, 3], dtype='float16'), b := convert(weights(3, 4), dtype='float16')), "
            "convert([4, 5], dtype='float16'))",
            "matmul(matmul(convert([2, 3], dtype='float16'), b := convert(weights(3, 4), dtype='float16')), "
            "convert(weights(4, 5), dtype='float16'))",
            "no_overflow",
        ),
    ],
)
def test_an_assumption_is_known_or_granted(name, refused, known, assumed):
    assert not fires(name, refused)
    assert fires(name, refused, GRANTED | {assumed})
    assert fires(name, known)


def test_indices_are_checked_by_each_table():
    """The rows of all tables lie side by side: an index beyond its table would read the next one."""
    texts = {
        "integers(4)": True,
        "integers(4, least=0, most=2)": False,
        "integers(4, least=-1, most=2)": True,
        "clamp(integers(4), low=0, high=2)": False,
    }
    for text, checked in texts.items():
        graph = TermGraph()
        both = f"cat(embedding([3, 2], {text}), embedding([5, 2], {text}), dim=0)"
        graph.roots = [build_example(both, Builder(GraphStore(graph))).id]
        before = len(graph)
        assert rewrites(law_named("lookups_in_several_tables"), graph)
        new = [node.op for node in graph.nodes[before:]]
        assert ("where" in new) or not checked, (text, new)


@pytest.mark.parametrize(
    ("assumes", "message"),
    [({"y": "finite"}, "unbound variable 'y'"), ({"x": "sane"}, "unknown assumption 'sane'; it is one of finite, ")],
)
def test_malformed_assumptions(assumes, message):
    with pytest.raises(LawError, match=message):

        @law("relu(x)", example="relu([4])", assumes=assumes)
        def same(t, x):
            """relu(x) = x"""
            return x


def test_what_is_granted_is_known_by_name():
    assert GRANTED < EVERYTHING
