"""Small models, compiled as the tests of this folder compile them."""

import torch
from torch import nn

from torch_eqsat import report as reports

OPTIONS = {
    "eqsat.strict": True,
    "eqsat.seconds": 5.0,
    "eqsat.measure_seconds": 10.0,
    "force_disable_caches": True,
}
DETERMINISTIC = {
    "eqsat.deterministic": True,
    "eqsat.seconds": 1.0,
    "eqsat.min_saving": 0.0,
    "force_disable_caches": True,
}


def compiled(model, dynamic=None, **options):
    return torch.compile(model, backend="eqsat_mcts", dynamic=dynamic, options={**OPTIONS, **options})


def frozen(model):
    return compiled(model, freezing=True)


def interpreted(function, dynamic=None, **options):
    given = {**DETERMINISTIC, **options}
    return torch.compile(function, backend="eqsat_mcts_eager", dynamic=dynamic, options=given)


class Folding(nn.Sequential):
    """Two linear layers that are one."""

    def __init__(self, inside: int = 512, outside: int = 64):
        super().__init__(nn.Linear(outside, inside), nn.Linear(inside, outside))


class Small(nn.Module):
    """A convolution, batch normalisation, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def mlp():
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 4))


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def only_report():
    (report,) = reports.last_reports()
    return report


def last():
    return reports.last_reports()[-1]
