"""Plans and coefficients that travel with torch's artifacts."""

import json

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor.utils import fresh_inductor_cache
from torch.compiler._cache import CacheArtifactManager

from torch_eqsat import report as reports
from torch_eqsat.cost.kernel import Measurement
from torch_eqsat.cost.measure import kernels
from torch_eqsat.cost.table import Context, Table
from torch_eqsat.counters import count_timing, timings
from torch_eqsat.planning.plans import artifacts
from torch_eqsat.planning.plans.artifacts import adopt_coefficients, offer_coefficients, offered
from torch_eqsat.planning.plans.plan_store import load_plan

HERE = Context("cpu", "some CPU", 1, "2.14.1")


@pytest.fixture(autouse=True)
def new_machine():
    """No artifacts from before, and Inductor's folder is empty."""
    with CacheArtifactManager.with_fresh_cache(), fresh_inductor_cache():
        yield


def loaded_elsewhere():
    """What was saved here, loaded on a machine without caches."""
    found = torch.compiler.save_cache_artifacts()
    assert found is not None
    return torch.compiler.load_cache_artifacts(found[0])


def test_coefficients_are_adopted_where_there_are_none(tmp_path):
    with Table(HERE, tmp_path / "first") as table:
        offer_coefficients(table)
        table.store_coefficients({"fusible cheap_ns": 7.0}, 0.1, 3)
        offer_coefficients(table)
    with Table(HERE, tmp_path / "second") as other:
        adopt_coefficients(other)
        assert other.coefficients() == {}
        loaded_elsewhere()
        adopt_coefficients(other)
        assert other.coefficients() == {"fusible cheap_ns": 7.0}
        other.store_coefficients({"fusible cheap_ns": 9.0}, 0.1, 3)
        adopt_coefficients(other)
        assert other.coefficients() == {"fusible cheap_ns": 9.0}


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": "b"}', json.dumps({"a": float("inf")}).encode(), b"{}"])
def test_coefficients_that_make_no_sense(tmp_path, content, monkeypatch):
    monkeypatch.setattr(artifacts, "offered", lambda *_, **__: iter([content]))
    with Table(HERE, tmp_path / "t") as table:
        adopt_coefficients(table)
        assert table.coefficients() == {}


def test_nothing_was_loaded():
    assert list(offered("eqsat_plan_of_nobody", 100)) == []


@pytest.mark.slow
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("freezing", [False, True])
def test_a_new_machine_starts_warm(freezing, tmp_path, monkeypatch):
    """It searches nothing, times nothing and generates no code. Kernels take what their work suggests, and the search
    ends by itself, so that a busy machine makes the same plan."""

    def measured(kernel, timer):
        count_timing("kernel")
        return Measurement(1e-6 * kernel.flops, 0.0, 1)

    monkeypatch.setattr(kernels, "measure", measured)
    options = {"freezing": freezing, "eqsat.seconds": 300.0, "eqsat.measure_seconds": 300.0}

    def answer():
        torch.compiler.reset()
        counters.clear()
        with torch.no_grad():
            compiled = torch.compile(model, backend="eqsat_mcts", options=options)
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
        return reports.last_reports()

    model, x = nn.Sequential(nn.Linear(64, 1024), nn.Linear(1024, 8)).eval(), torch.randn(32, 64)
    (first,) = answer()
    assert first.changed and not first.from_plan and timings()
    artifacts_ = torch.compiler.save_cache_artifacts()
    assert artifacts_ is not None
    monkeypatch.setenv("TORCH_EQSAT_CACHE_DIR", str(tmp_path / "elsewhere"))
    with fresh_inductor_cache():
        torch.compiler.load_cache_artifacts(artifacts_[0])
        again = answer()
        assert timings() == 0
        if freezing:
            assert [r.plan_key for r in again if r.from_plan] == [first.plan_key]
            assert counters["inductor"]["fxgraph_cache_hit"] == 1
            assert load_plan(first.plan_key) is not None  # and it is kept
        else:  # torch does not even ask for a plan
            assert not again and counters["aot_autograd"]["autograd_cache_hit"] == 1
