"""A fault leaves the graph as it is, and a rewrite that is refused stays refused."""

import logging

import pytest
import torch
from torch._dynamo.utils import counters

from tests.end_to_end.models import Folding, assert_close, compiled, interpreted, mlp, only_report
from torch_eqsat import backend
from torch_eqsat.backend import COUNTERS
from torch_eqsat.errors import WorkerError

pytestmark = pytest.mark.usefixtures("fresh")
slow = pytest.mark.slow


def broken(*_):
    raise WorkerError("the search worker died\nin two lines")


@slow
def test_fault_leaves_the_graph(monkeypatch, caplog):
    monkeypatch.setattr(backend, "optimize", broken)
    model, x = mlp(), torch.rand(2, 16)
    with caplog.at_level(logging.WARNING, logger="torch_eqsat"):
        y = compiled(model, **{"eqsat.strict": False})(x)
    assert_close(y, model(x))
    (record,) = [r for r in caplog.records if r.name.startswith("torch_eqsat")]
    assert record.getMessage() == "graph left as it is: WorkerError: the search worker died"
    assert counters[COUNTERS]["faults"] == 1
    assert counters[COUNTERS]["rewritten"] == 0
    assert "WorkerError" in only_report().decision


@slow
def test_strict_raises(monkeypatch):
    monkeypatch.setattr(backend, "optimize", broken)
    with pytest.raises(Exception, match="the search worker died"):
        interpreted(mlp(), **{"eqsat.strict": True})(torch.rand(2, 16))
    assert counters[COUNTERS]["faults"] == 1


@slow
def test_refused_rewrite_leaves_the_graph(monkeypatch, caplog):
    monkeypatch.setattr("torch_eqsat.planning.verdict.disagreement", lambda *_: "output 0: wrong")
    model, x = Folding().eval(), torch.rand(32, 64)
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        assert_close(interpreted(model, freezing=True)(x), model(x))
    assert not only_report().changed
    assert "refused (output 0: wrong)" in only_report().decision


@slow
def test_refused_rewrite_stays_refused(monkeypatch):
    model, x = Folding().eval(), torch.rand(32, 64)
    with torch.no_grad(), monkeypatch.context() as patch:
        patch.setattr("torch_eqsat.planning.verdict.disagreement", lambda *_: "output 0: wrong")
        interpreted(model, freezing=True)(x)
    torch.compiler.reset()
    with torch.no_grad():
        assert_close(interpreted(model, freezing=True)(x), model(x))
    assert only_report().from_plan and not only_report().changed
