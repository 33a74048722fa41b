"""Numbers and dtypes that the language has no terms for stay in calls as the user wrote them."""

import pytest
import torch

from tests.end_to_end.models import interpreted, last

pytestmark = pytest.mark.usefixtures("fresh")
ZEROS = torch.tensor([0.0, -0.0, 1.0, -1.0])


def products_with_both_zeros(x):
    return (x * 0.0).reciprocal(), (x * -0.0).reciprocal(), torch.relu(torch.relu(x))


def bounds_of_both_zeros(x):
    return x.clamp(min=0.0).reciprocal(), x.clamp(min=-0.0).reciprocal(), torch.relu(torch.relu(x))


@pytest.mark.parametrize("function", [products_with_both_zeros, bounds_of_both_zeros])
def test_zeros_of_both_signs_are_told_apart(function):
    """0 and -0 were one term: of two products the second became the first."""
    options = {"eqsat.strict": True, "eqsat.judge": False}
    with torch.no_grad():
        actual, expected = interpreted(function, **options)(ZEROS), function(ZEROS)
    assert last().changed
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_numbers_of_eight_bits(dtype):
    """A program with them could not be read back, and the judge could not compare them: a fault each."""

    def rounded(x, a, b, small):
        turned = x.to(dtype).mT
        return turned.to(torch.float32).mT + 1, turned[1:], (x @ a) @ b, small.float() * 2 + 1, small.mT

    inputs = torch.randn(16, 16), torch.randn(16, 64), torch.randn(64, 2), torch.randn(4, 4).to(dtype)
    with torch.no_grad():
        actual, expected = interpreted(rounded, **{"eqsat.strict": True})(*inputs), rounded(*inputs)
    assert last().changed
    for found, own in zip(actual, expected, strict=True):
        torch.testing.assert_close(found.float(), own.float(), rtol=1e-4, atol=1e-4)


W, V = torch.randn(2, 16, 16)


@pytest.mark.parametrize(
    "cells",
    [
        lambda y: torch.floor(y * 2.0 / 41.0),
        lambda y: ((y + 41.0) / 41.0 * 0.5).long().float(),
        lambda y: ((y * 3.0) / 123.0).expand(-1, 4).mean(-1, keepdim=True).ceil(),
        lambda y: (y * 2.0 / 82.0 == torch.arange(32)[:, None]).float(),
        lambda y: torch.tanh(y * 2.0 / 41.0) + torch.floor(y * 2.0 / 41.0),
    ],
    ids=["floor", "conversion", "ceil of a mean", "comparison", "an equal call before"],
)
def test_numbers_that_are_exact_on_purpose(cells):
    """82 / 41 is 2, and its floor another cell if a product with 1 / 41 rounds it below; compiled where it does not
    show, so that the judge cannot see it."""

    def function(x, y):
        return x @ W + x @ V + cells(y)

    x, y = torch.randn(32, 16), 41.0 * torch.arange(32.0)[:, None]
    compiled = interpreted(function, **{"eqsat.strict": True})
    with torch.no_grad():
        compiled(x, 0.25 + torch.rand(32, 1))
        assert last().changed
        torch.testing.assert_close(compiled(x, y), function(x, y), rtol=1e-4, atol=1e-4)
