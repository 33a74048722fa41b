"""Winograd's convolutions end to end."""

import pytest
import torch
from torch import nn

from torch_eqsat import report as reports

OPTIONS = {"eqsat.strict": True, "eqsat.seconds": 5.0, "eqsat.deterministic": True, "force_disable_caches": True}

pytestmark = pytest.mark.usefixtures("fresh")


def network():
    """Two convolutions, whose 30 rows and columns are no multiple of a tile."""
    return nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1, bias=False)).eval()


def applied():
    laws = reports.last_reports()[-1].laws
    return laws["four_points"] + laws["six_points"]


@pytest.mark.slow
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_inference(layout):
    model = network()
    image = torch.randn(2, 64, 30, 30).to(memory_format=layout)
    with torch.no_grad():
        expected = model(image)
        result = torch.compile(model, backend="eqsat_mcts", options={**OPTIONS, "freezing": True})(image)
    assert applied() >= 4
    assert result.stride() == expected.stride()
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_kernels_that_are_trained_stay():
    """ResNet-18's step took 90 ms with Winograd's convolutions and 68 without."""
    model = network()
    image = torch.randn(2, 64, 30, 30)
    result = torch.compile(model, backend="eqsat_mcts_eager", options=OPTIONS)(image)
    assert not applied()
    torch.testing.assert_close(result, model(image), rtol=1e-4, atol=1e-5)
