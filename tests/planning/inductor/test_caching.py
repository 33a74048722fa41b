"""Frozen graphs from Inductor's cache."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor import config as inductor_config
from torch._inductor.utils import fresh_inductor_cache

from torch_eqsat import report as reports
from torch_eqsat.planning.inductor.caching import packed_weights_in_keys

pytestmark = [pytest.mark.usefixtures("fresh"), pytest.mark.slow]
OPTIONS = {"freezing": True, "eqsat.seconds": 5, "eqsat.deterministic": True, "eqsat.strict": True}


def network():
    """Convolutions, of which two become Winograd's, and linear layers, which are folded."""
    return nn.Sequential(
        nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 300), nn.Linear(300, 10),
    ).eval()  # fmt: skip


def answer(model, x):
    """What a new process would answer, but for what lies on the disk."""
    torch.compiler.reset()
    counters.clear()
    with torch.no_grad():
        result = torch.compile(model, backend="eqsat_mcts", options=OPTIONS)(x)
    torch.testing.assert_close(result, model(x), rtol=1e-3, atol=1e-4)
    return counters["inductor"]["fxgraph_cache_hit"], reports.last_reports()[-1]


def test_the_code_of_a_frozen_model_is_made_once():
    """Weights packed by oneDNN kept frozen graphs out of the cache: each start made all code again."""
    model, x = network(), torch.randn(1, 64, 28, 28)
    with fresh_inductor_cache():
        hits, report = answer(model, x)
        assert report.changed and hits == 0
        assert answer(model, x)[0] == 1
        with torch.no_grad():  # another checkpoint: the code is the same, the values are its own
            for parameter in model.parameters():
                parameter.mul_(0.9)
        assert answer(model, x)[0] == 1
        other = copy.deepcopy(model)
        other[0] = nn.Conv2d(64, 64, 3, padding=1, dilation=2)
        assert answer(other.eval(), x)[0] == 0


def test_kernels_that_pack_weights_again_are_not_shared():
    """Another checkpoint got the weights of the first: its code had them packed once more, and stored."""
    x, tried = torch.randn(8, 64), {**OPTIONS, "max_autotune": True, "max_autotune_gemm_backends": "CPP,ATEN"}
    with fresh_inductor_cache():
        for seed in (0, 1):
            torch.compiler.reset()
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).eval()
            with torch.no_grad():
                result = torch.compile(model, backend="eqsat_mcts", options={**tried, "eqsat.strategy": "none"})(x)
            torch.testing.assert_close(result, model(x), rtol=1e-4, atol=1e-5)


def test_other_versions_of_torch_are_left_alone(monkeypatch):
    monkeypatch.delattr(torch._inductor.codecache, "CacheabilityValidator")
    before = torch._inductor.codecache.FxGraphCachePickler._reduce_tensor
    with packed_weights_in_keys({}), inductor_config.patch(freezing=True):
        assert torch._inductor.codecache.FxGraphCachePickler._reduce_tensor is before
