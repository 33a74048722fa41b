"""Patterns: reading, variants, variables."""

import pytest

from torch_eqsat.errors import LawError
from torch_eqsat.laws.pattern import (
    Application,
    Place,
    Variable,
    applications,
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
    assert parse_pattern("slice(F(a, b))", {"F": Place("add", 2)}) == parse_pattern("slice(add(a, b))")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "bare variable"),
        ("madd(x, y)", "unknown operator 'madd'"),
        ("matmul(x)", "matmul takes 2 operands"),
        ("mul(x, 'a')", "cannot read"),
        ("slice(x, dim=1)", "cannot read"),
        ("y := x", "cannot read"),
        ("add(x, *y)", "cannot read"),
    ],
)
def test_malformed(text, message):
    with pytest.raises(LawError, match=message):
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


def test_numbers_are_scalars():
    assert parse_pattern("add(x, -1)").children[1] == Application("scalar", (), value=-1.0)


def test_metavariable_fills_the_other_operands():
    places = {"L": Place("matmul", 2, 1)}
    assert parse_pattern("add(L(x), L(y))", places) == parse_pattern("add(matmul(L_0, x), matmul(L_0, y))")
