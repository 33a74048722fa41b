"""Graphs that read and write by address, end to end."""

import pytest
import torch
from torch import nn

from torch_eqsat import report as reports

OPTIONS = {"eqsat.strict": True, "eqsat.seconds": 5.0, "eqsat.deterministic": True, "force_disable_caches": True}

pytestmark = pytest.mark.usefixtures("fresh")


@pytest.mark.slow
def test_what_writes_by_address_keeps_its_graph():
    def chain(a, b, c):
        y = ((a @ b) @ c).t().contiguous()
        y.as_strided(y.shape, (y.shape[1], 1)).add_(1)
        return y.relu()

    values = torch.randn(512, 32), torch.randn(32, 512), torch.randn(512, 16)
    with torch.no_grad():
        result = torch.compile(chain, backend="eqsat_mcts", options={**OPTIONS, "eqsat.judge": False})(*values)
    torch.testing.assert_close(result, chain(*values), rtol=1e-4, atol=1e-3)
    assert "as_strided_scatter" in reports.last_reports()[-1].decision


@pytest.mark.slow
def test_group_normalisation_does_not_keep_a_graph_from_being_rewritten():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.GroupNorm(2, 8),
        nn.SiLU(),
        nn.Conv2d(8, 256, 1),
        nn.Conv2d(256, 8, 1),
        nn.GroupNorm(2, 8),
    ).eval()
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        result = torch.compile(model, backend="eqsat_mcts", options={**OPTIONS, "freezing": True})(image)
        torch.testing.assert_close(result, model(image), rtol=1e-4, atol=1e-5)
    assert reports.last_reports()[-1].changed
