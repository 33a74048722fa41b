"""The page of laws."""

from pathlib import Path

import pytest

from bench.laws.document import catalogue_page, document
from torch_eqsat.laws.law import equation, law
from torch_eqsat.laws.pattern import Place

PAGE = Path(__file__).parents[3] / "docs" / "laws.md"


def test_page_is_up_to_date():
    if not PAGE.exists():
        pytest.skip("not in a checkout: there is no folder docs beside the tests")
    assert PAGE.read_text(encoding="utf-8") == catalogue_page(), "the laws have changed: run make docs"


@law("F(G(x))", F=[Place("relu", 1), Place("abs", 1)], G=[Place("exp", 1)], exactness="bitwise", example="F(G([2]))")
def sign_of_positive(t, x, G):
    """f(g(x)) = g(x)"""
    return t.apply(G.op, [x])


@equation(
    "matmul(a, add(b, c)) = add(matmul(a, b), matmul(a, c))",
    example="matmul([2, 3], add([3, 4], [3, 4]))",
    back="add(matmul(a := [2, 3], [3, 4]), matmul(a, [3, 4]))",
    refused="matmul([2, 3], add([3, 4], [4]))",
    expansive="forward",
)
def product_distributes(b, c):
    """A (B + C) = A B + A C"""
    return b.shape == c.shape


def test_expanded_law():
    page = document(sign_of_positive, {"test_document": "Laws of a test."})
    assert "2 laws of 1 declarations" in page
    assert "## test_document\n\nLaws of a test.\n" in page
    assert "*bitwise, left to right*; 2 laws, over `relu`, `abs` with `exp`" in page
    assert "### sign_of_positive\n\nf(g(x)) = g(x)\n" in page
    assert "```\na = [2]\nrelu(u := exp(a))\n  = u\n```" in page


def test_equation():
    page = document(product_distributes, {})
    assert "*reassociates, both ways, expansive to the right*\n" in page
    assert "a = [2, 3]\nb = [3, 4]\nc = [3, 4]\nmatmul(a, add(b, c))\n  = add(matmul(a, b), matmul(a, c))\n" in page
    assert "Does not apply to\n\n- `matmul([2, 3], add([3, 4], [4]))`\n" in page
