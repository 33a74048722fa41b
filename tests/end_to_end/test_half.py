"""Half precision: the laws that single precision gets, and no larger errors than eager's."""

import copy

import pytest
import torch
from torch import nn

from tests.end_to_end.models import interpreted, last

pytestmark = [pytest.mark.usefixtures("fresh"), pytest.mark.slow]
MOST = 1.5  # of eager's distance to a run in double precision


def norm(channels):
    made = nn.BatchNorm2d(channels)
    for values, low, high in ((made.running_mean, -0.3, 0.3), (made.running_var, 0.5, 2.0), (made.weight, 0.5, 2.0)):
        nn.init.uniform_(values, low, high)
    return made


class Branches(nn.Module):
    """A block of RepVGG in training form."""

    def __init__(self, channels=16):
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 1)
        self.norms = nn.ModuleList(norm(channels) for _ in range(3))

    def forward(self, x):
        branches = zip(self.norms, (self.wide(x), self.narrow(x), x), strict=True)
        return torch.relu(sum(norm(branch) for norm, branch in branches))


class LowRank(nn.Module):
    """A linear layer with an adapter."""

    def __init__(self, width=64):
        super().__init__()
        self.whole, self.down, self.up = nn.Linear(width, width), nn.Linear(width, 8), nn.Linear(8, width)

    def forward(self, x):
        return self.whole(x) + self.up(self.down(x)) * 0.7


MODELS = {
    "branches": (lambda: nn.Sequential(Branches(), Branches()), (2, 16, 12, 12), "images_add"),
    "convolutions": (
        lambda: nn.Sequential(nn.Conv2d(16, 32, 1), norm(32), nn.Conv2d(32, 16, 1)),
        (2, 16, 12, 12),
        "pointwise_convolution_composes",
    ),
    "adapter": (LowRank, (2, 32, 64), "matmul_is_associative"),
    "linears": (lambda: nn.Sequential(nn.Linear(64, 256), nn.Linear(256, 64)), (2, 32, 64), "matmul_is_associative"),
}


def distance(y, exact):
    return float((y.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_gets_the_laws_of_float32(name):
    make, shape, law = MODELS[name]
    torch.manual_seed(0)
    model, x = make().eval().bfloat16(), torch.randn(shape).bfloat16()
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(x.double())
        eager, ours = model(x), interpreted(model, freezing=True)(x)
    assert any(name.startswith(law) for name in last().laws)
    assert last().best_ms < 0.9 * last().base_ms
    assert distance(ours, exact) <= MOST * distance(eager, exact)


@pytest.mark.parametrize("name", MODELS)
def test_autocast_gets_the_laws_of_float32(name):
    make, shape, law = MODELS[name]
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(shape)
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(x.double())
        with torch.autocast("cpu", torch.bfloat16):
            eager, ours = model(x), interpreted(model, freezing=True)(x)
    assert any(name.startswith(law) for name in last().laws)
    assert distance(ours, exact) <= MOST * distance(eager, exact)


class OfImages(nn.Module):
    """A linear layer of a permuted tensor, which torch writes as a batch of products with copies of its matrix."""

    def __init__(self):
        super().__init__()
        self.mixed, self.head = nn.Conv1d(32, 32, 1), nn.Linear(32, 2048)

    def forward(self, x):
        return self.head(self.mixed(x).transpose(1, 2))[:, -1]


@pytest.mark.parametrize("freezing", [True, False], ids=["frozen", "live"])
def test_a_batch_with_copies_of_one_matrix_is_one_product(freezing):
    model, x = OfImages().eval(), torch.randn(8, 32, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(interpreted(model, freezing=freezing)(x), model(x), rtol=2e-2, atol=1e-2)
    assert last().best_ms < 0.2 * last().base_ms
