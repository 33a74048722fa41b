"""What is found for one sample is found for a batch: nothing is special about a leading axis of one."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.end_to_end.models import assert_close, interpreted, last

pytestmark = [pytest.mark.usefixtures("fresh"), pytest.mark.slow]
WIDTH, LENGTH, CLASSES = 64, 32, 512


class Model(nn.Module):
    """Two linear layers and a norm, with one of the functions below."""

    def __init__(self, function):
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.norm, self.function = nn.LayerNorm(WIDTH), function
        self.register_buffer("positions", torch.tensor([3, 0, -1]))
        self.register_buffer("lengths", torch.arange(8) * 3 + 1)

    def forward(self, x):
        return self.function(self, x)


def gated(m, x):
    a, b = m.second(m.norm(m.first(x) + x)).chunk(2, -1)
    return torch.sigmoid(a) * b


class Block(nn.Module):
    """An encoder layer."""

    def __init__(self, causal):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.first, self.second, self.causal = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), causal

    def forward(self, x):
        q, k, v = (y.unflatten(-1, (4, -1)).transpose(1, 2) for y in (self.q(x), self.k(x), self.v(x)))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = self.first(x + self.out(y.transpose(1, 2).flatten(2)))
        return self.second(x + self.narrow(functional.gelu(self.wide(x))))


READINGS = {
    "last_of_a_linear": lambda m, x: m.second(x)[:, -1],
    "last_of_a_norm": lambda m, x: m.second(m.norm(x))[:, -1],
    "last_of_layers": lambda m, x: m.second(torch.tanh(m.norm(m.first(x) + x)))[:, -1],
    "last_of_a_gate": lambda m, x: gated(m, x)[:, -1],
    "some_of_layers": lambda m, x: m.second(torch.relu(m.first(x)))[:, 5:7],
    "every_eighth_of_layers": lambda m, x: m.second(m.norm(m.first(x)))[:, 3::8],
    "every_last_of_a_flat_batch": lambda m, x: m.second(torch.relu(m.first(x))).flatten(0, 1)[LENGTH - 1 :: LENGTH],
    "mean_of_a_linear": lambda m, x: m.second(x).mean(1),
    "mean_of_two_linears": lambda m, x: m.second(m.first(x)).mean(1),
    "positions_by_index": lambda m, x: m.second(torch.relu(m.first(x)))[:, m.positions],
    "one_position_of_each": lambda m, x: m.second(m.norm(m.first(x)))[torch.arange(len(x)), m.lengths[: len(x)]],
}


def rewritten(model, x, freezing):
    with torch.no_grad():
        assert_close(interpreted(model, freezing=freezing)(x), model(x))
    return last()


@pytest.mark.parametrize("freezing", [True, False], ids=["frozen", "live"])
@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("name", READINGS)
def test_what_is_not_read_is_not_computed(name, batch, freezing):
    report = rewritten(Model(READINGS[name]).eval(), torch.randn(batch, LENGTH, WIDTH), freezing)
    assert report.best_ms < 0.5 * report.base_ms


def test_sum_over_a_batch():
    report = rewritten(Model(lambda m, x: m.second(x).sum(0)).eval(), torch.randn(8, LENGTH, WIDTH), True)
    assert report.best_ms < 0.3 * report.base_ms


def test_an_index_out_of_range_is_still_an_error():
    model, x = Model(READINGS["one_position_of_each"]).eval(), torch.randn(2, LENGTH, WIDTH)
    ours = interpreted(model)
    with torch.no_grad():
        assert_close(ours(x), model(x))
        model.lengths[1] = LENGTH
        for run in (model, ours):
            with pytest.raises(IndexError, match="out of bounds"):
                run(x)


@pytest.mark.parametrize("causal", [False, True], ids=["encoder", "decoder"])
@pytest.mark.parametrize("batch", [1, 2])
def test_one_position_of_a_transformer(batch, causal):
    block = Block(causal).eval()
    report = rewritten(nn.Sequential(block, _Last()), torch.randn(batch, LENGTH, WIDTH), True)
    assert report.best_ms < 0.5 * report.base_ms


class _Last(nn.Module):
    def forward(self, x):
        return x[:, -1]
