"""Patterns: reading, variants, variables."""

import pytest

from torch_eqsat.errors import RuleError
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.rules.builder import Builder, GraphStore
from torch_eqsat.rules.pattern import (
    Application,
    Variable,
    applications,
    build_example,
    commuted,
    parse_pattern,
    variables,
)


def test_parse():
    pattern = parse_pattern("z := matmul(y := matmul(a, b), c)")
    inner = Application("matmul", (Variable("a"), Variable("b")), "y")
    assert pattern == Application("matmul", (inner, Variable("c")), "z")
    assert variables(pattern) == ["z", "y", "a", "b", "c"]
    assert [a.name for a in applications(pattern)] == ["z", "y"]
    assert parse_pattern("mul(x, s := scalar())").children[1].constructor == ("scalar", 0)


def test_repeated_variables_are_listed_once():
    assert variables(parse_pattern("add(add(x, c), add(x, d))")) == ["x", "c", "d"]


def test_metavariable():
    assert parse_pattern("slice(F(a, b))", {"F": ("add", 2)}) == parse_pattern("slice(add(a, b))")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "bare variable"),
        ("madd(x, y)", "unknown operator 'madd'"),
        ("matmul(x)", "matmul takes 2 operands"),
        ("mul(x, 2)", "cannot read '2'"),
        ("slice(x, dim=1)", "cannot read"),
        ("y := x", "cannot read"),
        ("add(x, *y)", "cannot read"),
    ],
)
def test_malformed(text, message):
    with pytest.raises(RuleError, match=message):
        parse_pattern(text)


def test_commuted():
    def texts(pattern):
        if isinstance(pattern, Variable):
            return pattern.name
        return f"{pattern.op}({','.join(texts(child) for child in pattern.children)})"

    def variants(text):
        return {texts(variant) for variant in commuted(parse_pattern(text))}

    assert variants("matmul(a, b)") == {"matmul(a,b)"}
    assert variants("add(a, b)") == {"add(a,b)", "add(b,a)"}
    assert variants("add(x, x)") == {"add(x,x)"}
    assert variants("add(mul(x, c), x)") == {"add(mul(x,c),x)", "add(mul(c,x),x)", "add(x,mul(x,c))", "add(x,mul(c,x))"}
    assert len(variants("matmul(add(a, b), mul(c, d))")) == 4
    assert variables(parse_pattern("z := add(y := mul(a, b), c)")) == ["z", "y", "a", "b", "c"]
    assert all(v.name == "z" for v in commuted(parse_pattern("z := add(y := mul(a, b), c)")))


def test_example():
    graph = TermGraph()
    root = build_example("add(matmul(x := [2, 3], [3, 2]), mul([2], 0.5))", Builder(GraphStore(graph)))
    assert root.shape == (2, 2)
    assert [node.op for node in graph.nodes] == ["input", "input", "matmul", "input", "scalar", "mul", "add"]
    assert build_example("embedding([9, 4], integers(2, 5))", Builder(GraphStore(TermGraph()))).shape == (2, 5, 4)


def test_malformed_example():
    with pytest.raises(RuleError, match="cannot read"):
        build_example("add([2], -[2])", Builder(GraphStore(TermGraph())))
