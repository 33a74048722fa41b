"""A rewritten graph that does not compile is compiled as it was."""

import logging

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from torch_eqsat import backend
from torch_eqsat import report as reports
from torch_eqsat.backend import COUNTERS
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.planning.plans.plan import Plan
from torch_eqsat.planning.plans.plan_store import load_plan, store_plan

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh")]


def spoil(graph, *_):
    """Take the operands of the last call away."""
    next(node for node in reversed(graph.nodes) if node.op == "call_function").args = ()
    store_plan("spoilt", Plan(1.0, 0.5, (), TermGraph(), ()))
    return reports.GraphReport(len(graph.nodes), False, "rewritten, 1 calls are new", changed=True, plan_key="spoilt")


def model():
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4))


def compiled(module, **options):
    return torch.compile(module, backend="eqsat_mcts", options={"force_disable_caches": True, **options})


def check_said(records):
    (said,) = (r.getMessage() for r in records if r.name.startswith("torch_eqsat"))
    assert said.startswith("graph left as it is: rewritten it does not compile: ")
    assert (counters[COUNTERS]["faults"], counters[COUNTERS]["rewritten"], counters[COUNTERS]["unchanged"]) == (1, 0, 1)
    assert load_plan("spoilt") is None
    (report,) = reports.last_reports()
    assert not report.changed and report.decision.startswith("left as it is: rewritten it does not compile")


@pytest.mark.parametrize("freezing", [False, True])
def test_inference(monkeypatch, caplog, freezing):
    monkeypatch.setattr(backend, "optimize", spoil)
    module, x = model().eval(), torch.randn(3, 6)
    with torch.no_grad(), caplog.at_level(logging.WARNING, logger="torch_eqsat"):
        torch.testing.assert_close(compiled(module, freezing=freezing)(x), module(x))
    check_said(caplog.records)


def test_training(monkeypatch, caplog):
    monkeypatch.setattr(backend, "optimize", spoil)
    module, x = model(), torch.randn(3, 6, requires_grad=True)
    with caplog.at_level(logging.WARNING, logger="torch_eqsat"):
        result = compiled(module)(x)
    check_said(caplog.records)
    variables = [x, *module.parameters()]
    expected = torch.autograd.grad(module(x).square().sum(), variables)
    for found, wanted in zip(torch.autograd.grad(result.square().sum(), variables), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_strict_raises(monkeypatch):
    monkeypatch.setattr(backend, "optimize", spoil)
    with torch.no_grad(), pytest.raises(Exception, match="missing value for argument"):
        compiled(model().eval(), **{"eqsat.strict": True})(torch.randn(3, 6))
