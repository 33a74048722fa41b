"""Graphs are rewritten where that pays, by the laws that the options allow, and the report says by which."""

import logging

import pytest
import torch
from torch._dynamo.utils import counters

import torch_eqsat
from tests.end_to_end.models import OPTIONS, Folding, Small, assert_close, compiled, frozen, interpreted, only_report
from torch_eqsat import report as reports
from torch_eqsat.backend import COUNTERS
from torch_eqsat.laws.law import law
from torch_eqsat.rewrites import catalogue

pytestmark = pytest.mark.usefixtures("fresh")
slow = pytest.mark.slow


def diagonal_without_product(t, d, a, b):
    """diag(A B) = Σₖ Aᵢₖ Bₖᵢ"""
    return t.view(t.reduce(t.mul(a, t.permute(b, [1, 0])), "sum", [1]), d.shape)


def only_small_ones(t, a, b):
    """A B = A B"""
    return a.no_such_attribute if a.numel > 100 else t.add(t.matmul(a, b), t.scalar(0.0))


@slow
def test_law_of_the_user(caplog):
    mine = law("d := diagonal(m := matmul(a, b))", example="diagonal(matmul([3, 4], [4, 3]))")(diagonal_without_product)
    bad = law("matmul(a, b)", example="matmul([2, 3], [3, 4])")(only_small_ones)
    a, b = torch.randn(256, 256), torch.randn(256, 256)

    def function(a, b):
        return torch.diagonal(a @ b).relu()

    families = {item.family for item in catalogue()}
    with torch.no_grad(), caplog.at_level(logging.WARNING, "torch_eqsat"):
        rewritten = interpreted(function, **{"eqsat.laws": [mine, *bad], "eqsat.disable": sorted(families)})
        assert_close(rewritten(a, b), function(a, b))
    assert set(only_report().laws) == {"diagonal_without_product"}
    (line,) = [r.getMessage() for r in caplog.records if r.name == "torch_eqsat.planning.planner"]
    assert "without a law" in line and "only_small_ones" in line and "no_such_attribute" in line


@slow
def test_two_linear_layers_are_folded():
    model, x = Folding().eval(), torch.rand(32, 64)
    with torch.no_grad():
        expected = model(x)
        actual = frozen(model)(x)
    report = only_report()
    assert report.changed and report.frozen and not report.from_plan
    assert any("associative" in law for region in report.regions for law in region.laws)
    assert "matmul_is_associative" in report.laws
    assert report.best_ms < report.base_ms
    assert "matmul_is_associative" in str(report)
    assert counters[COUNTERS]["rewritten"] == 1
    assert_close(actual, expected)


@slow
def test_folding_that_does_not_pay_is_refused(one_thread):
    model, x = Folding(inside=64, outside=768).eval(), torch.rand(32, 768)
    with torch.no_grad():
        # With less time the folded kernel may stay unmeasured, at a price that flatters it.
        actual = compiled(model, freezing=True, **{"eqsat.measure_seconds": 10.0})(x)
        assert_close(actual, model(x))
    # The two products may still go to other kernels, and their biases be one.
    assert not any("associative" in law for region in only_report().regions for law in region.laws)


@slow
def test_convolution_and_batch_norm():
    model, x = Small().eval(), torch.rand(2, 3, 12, 12)
    model.norm.running_mean.uniform_()
    model.norm.running_var.uniform_(0.5, 2.0)
    with torch.no_grad():
        assert_close(frozen(model)(x), model(x))


@slow
def test_disabled_laws_are_not_used():
    model, x = Folding().eval(), torch.rand(32, 64)
    with torch.no_grad():
        interpreted(model, freezing=True, **{"eqsat.disable": ["matmul"]})(x)
    assert not any(law.startswith("matmul_associates") for law in only_report().laws)


@slow
def test_association_without_freezing():
    def function(x, a, b):
        return (x @ a) @ b

    inputs = torch.rand(256, 256), torch.rand(256, 256), torch.rand(256, 2)
    torch.testing.assert_close(compiled(function)(*inputs), function(*inputs), rtol=1e-4, atol=1e-2)
    assert only_report().changed and not only_report().frozen


@slow
def test_graph_breaks():
    def function(x, a, b):
        y = (x @ a) @ b
        torch._dynamo.graph_break()
        return y * 2

    inputs = torch.rand(256, 256), torch.rand(256, 256), torch.rand(256, 2)
    torch.testing.assert_close(interpreted(function)(*inputs), function(*inputs), rtol=1e-4, atol=1e-2)
    assert len(reports.last_reports()) == 2


@slow
def test_explain():
    explanation = torch_eqsat.explain(lambda x: (x @ x.t()) @ x, torch.rand(64, 4), options=OPTIONS)
    assert len(explanation.graphs) == 1
    assert "graph of" in str(explanation)


@slow
def test_explain_twice():
    model, x = Folding().eval(), torch.rand(32, 64)
    with torch.no_grad():
        for _ in range(2):
            assert "graph of" in str(torch_eqsat.explain(model, x, options={"freezing": True}))
