"""Plans on disk, and the two graphs timed once."""

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from tests.end_to_end.models import Folding, assert_close, compiled, interpreted, mlp, only_report
from torch_eqsat import report as reports
from torch_eqsat.backend import COUNTERS
from torch_eqsat.counters import timings
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.planning.plans.plan import Plan

pytestmark = pytest.mark.usefixtures("fresh")
slow = pytest.mark.slow


@slow
def test_plan_is_reused():
    model, x = Folding().eval(), torch.rand(32, 64)
    with torch.no_grad():
        interpreted(model, freezing=True)(x)
        first = only_report()
        torch.compiler.reset()
        actual = interpreted(model, freezing=True)(x)
        assert_close(actual, model(x))
    second = only_report()
    assert second.from_plan and second.changed
    assert (second.laws, second.base_ms, second.best_ms) == (first.laws, first.base_ms, first.best_ms)
    assert "from a stored plan" in str(second)
    assert counters[COUNTERS]["plans_reused"] == 1


@slow
def test_plans_are_not_kept_without_the_cache(tmp_path):
    with torch.no_grad():
        interpreted(Folding().eval(), freezing=True, **{"eqsat.cache": False})(torch.rand(32, 64))
    assert not list(tmp_path.glob("**/plans-*/*.json"))


@slow
def test_plan_that_does_not_fit_leaves_the_result_right(monkeypatch):
    monkeypatch.setattr("torch_eqsat.planning.pipeline.load_plan", lambda key: Plan(1.0, 0.1, (), TermGraph(), ()))
    model, x = Folding().eval(), torch.rand(32, 64)
    with torch.no_grad():
        assert_close(interpreted(model, freezing=True, **{"eqsat.strict": False})(x), model(x))


@slow
@pytest.mark.parametrize("freezing", [True, False])
def test_graphs_are_measured_once(freezing, one_thread):
    """Both graphs run beside the user's compilation, and change nothing of it: not even the buffer that is written."""
    a, b, c = (torch.randn(shape) for shape in ((256, 256), (256, 256), (256, 2)))
    model = nn.Sequential(nn.Linear(64, 512), nn.Linear(512, 64)).eval()
    buffer = torch.zeros(256, 2)

    def products(a, b, c, buffer):
        buffer.add_(1)
        return (a @ b) @ c

    def run():
        measured = compiled(model if freezing else products, freezing=freezing, **{"eqsat.measure": True})
        with torch.no_grad():
            return measured(torch.ones(32, 64)) if freezing else measured(a, b, c, buffer)

    expected = model(torch.ones(32, 64)) if freezing else (a @ b) @ c
    torch.testing.assert_close(run(), expected.detach(), rtol=1e-3, atol=1e-3)
    first = only_report()
    assert first.changed and first.race.winner == "rewritten" and counters[COUNTERS]["timed_graphs"] == 2
    torch.compiler.reset()
    torch.testing.assert_close(run(), expected.detach(), rtol=1e-3, atol=1e-3)
    assert only_report().race == first.race and timings() == 0
    assert freezing or buffer.unique().tolist() == [2.0]


@slow
def test_reset_forgets():
    with torch.no_grad():
        interpreted(mlp())(torch.rand(2, 16))
    assert reports.last_reports() and counters[COUNTERS]["graphs"] == 1
    torch.compiler.reset()
    assert not reports.last_reports() and COUNTERS not in counters
