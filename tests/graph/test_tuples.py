"""Operators that return several tensors, and those that write into one: compiled, they agree with eager."""

import pytest
import torch
from torch.testing import assert_close

from torch_eqsat import report

OPTIONS = {"eqsat.deterministic": True, "eqsat.min_saving": 0.0, "eqsat.nodes": 500, "eqsat.cache": False}


def experts(x, w):
    """A mixture: two experts of four for each token."""
    values, chosen = (x @ w).topk(2, -1)
    return values.softmax(-1), chosen, torch.zeros(x.shape[0], 4).scatter_add(1, chosen, values * 2 + values * 3)


def smallest_rows(x, w):
    return (x @ w)[1:].topk(3, dim=0, largest=False)


@pytest.mark.parametrize("function", [experts, smallest_rows], ids=lambda f: f.__name__)
@pytest.mark.parametrize("strategy", ["saturation", "none"])
def test_agrees_with_eager(function, strategy, fresh):
    x, w = torch.randn(6, 5, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    options = {**OPTIONS, "eqsat.strategy": strategy, "eqsat.strict": True}
    compiled = torch.compile(function, backend="eqsat_mcts_eager", options=options)
    found, expected = compiled(x, w), function(x, w)
    assert_close(tuple(found), tuple(expected))
    gradients = [
        torch.autograd.grad(sum(y.square().sum() for y in ys if y.is_floating_point()), [x, w])
        for ys in (found, expected)
    ]
    assert_close(*gradients)
    with torch.no_grad():
        assert_close(tuple(compiled(x, w)), tuple(expected))
    assert all("refused" not in r.decision for r in report.last_reports())


def test_a_slice_goes_before_a_choice(fresh):
    options = {**OPTIONS, "eqsat.strategy": "saturation"}
    function = torch.compile(lambda x: x.topk(2, 1)[0][:1], backend="eqsat_mcts_eager", options=options)
    x = torch.randn(4096, 64)
    with torch.no_grad():
        assert_close(function(x), x.topk(2, 1)[0][:1])
    assert report.last_reports()[-1].changed
