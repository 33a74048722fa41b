"""Laws on terms, without an e-graph."""

import pytest

from torch_eqsat.errors import LawError
from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.laws.example import build_example
from torch_eqsat.laws.law import equation, law, siblings
from torch_eqsat.laws.matcher import check_examples, matches, rewrites


def graph_of(text):
    graph = TermGraph()
    build_example(text, Builder(GraphStore(graph)))
    return graph


def test_commuted_operands_match():
    @law("add(mul(x, c), y)", example="add(mul([4, 3], [3]), [4, 3])")
    def some(t, x, c, y):
        """x · c + y"""

    graph = graph_of("add([4, 3], mul([4, 3], [3]))")
    assert len(list(matches(some[0], graph))) == 2  # either factor may be x


def test_operands_of_named_applications():
    @law("m := matmul(v := view(x), w)", example="matmul(view([6], shape=[2, 3]), [3, 4])")
    def some(t, m, v, x, w):
        """…"""

    (bound,) = matches(some[0], graph_of("matmul(view([6], shape=[2, 3]), [3, 4])"))
    assert [h.id for h in bound["m"].operands] == [bound["v"].id, bound["w"].id]
    assert bound["v"]["shape"] == (2, 3)


def test_equation_in_both_directions():
    @equation(
        "matmul(matmul(a, b), c) = matmul(a, matmul(b, c))",
        example="matmul(matmul([2, 3], [3, 4]), [4, 5])",
        back="matmul([2, 3], matmul([3, 4], [4, 5]))",
        expansive="back",
    )
    def associative():
        """(A B) C = A (B C)"""

    assert [item.name for item in associative] == ["associative", "associative[back]"]
    assert [item.expansive for item in associative] == [False, True]
    assert {item.declaration for item in associative} == {"associative"}
    for item in associative:
        check_examples(item)


def test_guard_of_an_equation():
    @equation("add(x, y) = mul(x, y)", example="add([4, 3], [4, 3])")
    def never(x):
        """refused everywhere"""
        return False

    with pytest.raises(LawError, match="does not fire on its example"):
        check_examples(never[0])


def test_equation_that_loses_a_variable_has_no_way_back():
    with pytest.raises(LawError, match="unbound variable 'c'"):
        equation("add(mul(x, c), mul(x, c)) = mul(x, 2)", example="add([2], [2])", back="mul([2], 2)")(documented)


def documented():
    """…"""


def test_sides_of_different_shape_are_an_error_that_names_the_law():
    @law("p := permute(x)", example="permute([2, 3], dims=[1, 0])")
    def dropped(t, p, x):
        """permute(x) = x"""
        return x

    with pytest.raises(LawError, match=r"law dropped \(.*test_matcher.py:\d+\) turns .*\(3, 2\).* into .*\(2, 3\)"):
        check_examples(dropped[0])


def test_siblings_without_a_shared_operand():
    @siblings("y := relu(x)", example="add(relu([2, 3]), relu([2, 3]))")
    def merged(t, members):
        """relu(a), relu(b) = split(relu([a; b]))"""
        both = t.apply("relu", (t.cat([member["x"] for member in members], 0),))
        return [t.slice(both, 0, 0, 2), None]

    graph = graph_of("add(relu([2, 3]), relu([2, 3]))")
    assert len(rewrites(merged[0], graph)) == 1  # None leaves the second as it is
    assert not rewrites(merged[0], graph_of("relu([2, 3])"))
