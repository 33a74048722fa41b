"""What Inductor's passes over frozen graphs get wrong by themselves."""

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.usefixtures("fresh")
SETTINGS = {"freezing": True, "eqsat.strict": True, "eqsat.strategy": "none", "force_disable_caches": True}


class Counts(nn.Module):
    """A product of integers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.arange(12).reshape(3, 4))

    def forward(self, x):
        return x.long() @ self.weight + 1


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Conv2d(3, 4, 3), (2, 3, 8, 8)),
        (nn.ConvTranspose2d(3, 4, 3), (2, 3, 8, 8)),
        (nn.Conv3d(3, 4, 1), (2, 3, 4, 4, 4)),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), (2, 3, 8, 8)),
        (Counts(), (2, 3)),
        (nn.Linear(3, 4), (2, 3)),
    ],
    ids=["conv", "transposed", "conv3d", "norm", "integers", "linear"],
)
def test_weights_that_onednn_does_not_pack(model, shape):
    """A frozen graph with one did not compile, and went on without freezing."""
    model, x = model.double().eval(), torch.rand(shape, dtype=torch.float64) * 9
    with torch.no_grad():
        actual = torch.compile(model, backend="eqsat_mcts_eager", options=SETTINGS)(x)
        torch.testing.assert_close(actual, model(x))
