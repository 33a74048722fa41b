"""Redundant laws are found, others are not."""

from bench.laws.redundancy import alpha_variants, format_redundancy, redundancy
from torch_eqsat.laws.law import equation, law

CHAIN = "matmul(matmul([2, 3], [3, 4]), [4, 5])"


@equation(
    "matmul(matmul(a, b), c) = matmul(a, matmul(b, c))", example=CHAIN, back="matmul([2, 3], matmul([3, 4], [4, 5]))"
)
def products_associate():
    """(A B) C = A (B C)"""


@law("matmul(matmul(p, q), r)", example=CHAIN)
def associate_again(t, p, q, r):
    """(P Q) R = P (Q R)"""
    return t.matmul(p, t.matmul(q, r))


@law("matmul(matmul(matmul(a, b), c), d)", example="matmul(matmul(matmul([2, 3], [3, 4]), [4, 5]), [5, 6])")
def four_associate(t, a, b, c, d):
    """((A B) C) D = A (B (C D))"""
    return t.matmul(a, t.matmul(b, t.matmul(c, d)))


@law("matmul(matmul(a, b), c)", example="matmul(matmul([2, 2], [2, 2]), [2, 2])")
def factors_turn(t, a, b, c):
    """(A B) C = B (C A), which has the same left side and another right side"""
    return t.matmul(b, t.matmul(c, a))


def test_what_follows_from_others_is_listed():
    laws = [*products_associate, *four_associate]
    assert redundancy(laws).derived == ("four_associate",)
    assert redundancy(laws[1:]).derived == ()
    assert redundancy(laws, [laws[0]]).derived == ()


def test_one_law_under_two_names():
    forward, back = products_associate
    assert alpha_variants([forward, back, *associate_again, *factors_turn]) == [(forward.name, "associate_again")]
    found = redundancy([forward, *associate_again])
    assert set(found.derived) == {forward.name, "associate_again"}
    assert f"{forward.name} = associate_again" in format_redundancy(found)


def test_law_that_raises_is_named():
    @law("matmul(matmul(a, b), c)", example=CHAIN)
    def broken(t, a, b, c):
        """(A B) C = ?"""
        return t.matmul(a, b[0]) if b.shape[0] == 5 else t.matmul(a, t.matmul(b, c))

    example = "matmul(matmul([2, 5], [5, 4]), [4, 6])"
    (other,) = law("v := matmul(x, y)", example=example)(lambda_like)
    (line,) = redundancy([*broken, other]).failed
    assert "law broken (" in line and "KeyError" in line


def lambda_like(t, v, x, y):
    """X Y = X Y + 0"""
    return t.add(v, t.scalar(0.0))
