"""Declarations of laws: what is expanded and what is refused, with its place."""

from types import SimpleNamespace

import pytest

from torch_eqsat.errors import LawError
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.laws.law import collect, law, siblings
from torch_eqsat.laws.pattern import Place, pointwise


def identity(t, x):
    """x = x"""
    return x


def undocumented(t, x):
    return x


def line_of(function):
    return f"{__file__}:{function.__code__.co_firstlineno}"


@pytest.mark.parametrize(
    ("pattern", "keywords", "message"),
    [
        ("frobnicate(x)", {}, "unknown operator 'frobnicate'"),
        ("matmul(x)", {}, "matmul takes 2 operands"),
        ("view(y)", {}, "unbound variable 'x'; the pattern binds root, y"),
        ("view(x", {}, "was never closed"),
        ("x", {}, "bare variable"),
        ("view(x)", {"exactness": "roughly"}, "exactness 'roughly' is not one of bitwise, reassociates, approximates"),
        ("view(F(x))", {"F": [Place("matmul", 1)]}, "matmul takes 2 operands"),
    ],
)
def test_malformed_law_names_its_place(pattern, keywords, message):
    with pytest.raises(LawError) as caught:
        law(pattern, **keywords)(identity)
    assert message in str(caught.value)
    assert "law identity" in str(caught.value)
    assert line_of(identity) in str(caught.value)


def test_law_without_statement():
    with pytest.raises(LawError, match=r"law undocumented \(.*test_law.py:\d+\): a law states itself"):
        law("view(x)")(undocumented)


def test_shared_variable_has_to_be_bound():
    with pytest.raises(LawError, match="unbound shared variable 'z'"):
        siblings("matmul(x, w)", shared="z", example="matmul([2, 3], [3, 4])")(identity)


def test_declared_law():
    (declared,) = law("v := view(view(x))", exactness="bitwise", example="view(view([2]))", refused=["a", "b"])(
        identity
    )
    assert (declared.name, declared.family, declared.statement) == ("identity", "test_law", "x = x")
    assert (declared.exactness, declared.parameters) == ("bitwise", ("x",))
    assert (declared.examples, declared.refused) == (("view(view([2]))",), ("a", "b"))
    assert declared.source == line_of(identity)
    assert not declared.siblings and not declared.normalises


def test_metavariables_are_expanded():
    laws = law(
        "G(F(x))",
        F=[Place("view", 1), Place("permute", 1)],
        G=[Place("reduce", 1), Place("slice", 1)],
        example="G(F([4, 3]), dim=0)",
    )(identity)
    assert [item.name for item in laws] == [
        "identity[view,reduce]",
        "identity[view,slice]",
        "identity[permute,reduce]",
        "identity[permute,slice]",
    ]
    assert laws[1].examples == ("slice(view([4, 3]), dim=0)",)
    assert laws[2].pattern.constructor == ("reduce", 1)


def test_malformed_expansion_names_the_operator():
    with pytest.raises(LawError, match=r"law identity\[matmul\]"):
        law("slice(F(x))", F=[Place("matmul", 1)])(identity)


def test_pointwise_metavariable():
    assert {Place("add", 2), Place("pointwise", 2)} <= set(pointwise(2))
    assert Place("relu", 1) in pointwise(1) and Place("relu", 1) not in pointwise(1, but=("relu",))
    assert set(pointwise(1, trait="odd")) == {Place(name, 1) for name in ("reciprocal", "tanh", "erf")}
    assert all("pointwise" in OPERATORS[place.op].traits for place in pointwise(1, 2, 3))


def test_collect():
    first = law("view(x)")(identity)
    second = law("F(x)", F=[Place("permute", 1), Place("view", 1)])(identity)
    module = SimpleNamespace(a=first, other=[1], empty=[], b=second)
    assert [item.name for item in collect(module)] == ["identity", "identity[permute]", "identity[view]"]


def test_two_laws_of_one_name():
    first, second = law("view(x)")(identity), law("permute(x)")(identity)
    with pytest.raises(LawError, match=r"law identity .* is also declared at") as caught:
        collect(SimpleNamespace(a=first), SimpleNamespace(b=second))
    assert line_of(identity) in str(caught.value)
