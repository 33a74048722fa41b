"""Right on every input: values that were silently wrong, refused or raised, each compared with eager.

Graphs are run by the interpreter, and planned at estimated prices, so that nothing here depends on the clock.
"""

import copy

import pytest
import torch
from torch import nn

from tests.end_to_end.models import interpreted, last

LOWEST = torch.finfo(torch.float32).min

pytestmark = pytest.mark.usefixtures("fresh")


def in_double(module, *inputs):
    return copy.deepcopy(module).double()(*(x.double() for x in inputs))


def error(actual, exact):
    return float(((actual.double() - exact).abs().max() / exact.abs().max()).detach())


@pytest.mark.parametrize("shape", [(2, 16, 1), (2, 1, 16), (16, 1), (1, 16, 16)], ids=str)
@pytest.mark.parametrize("value", [LOWEST, -torch.inf, -1e9], ids=["lowest", "infinity", "-1e9"])
def test_masks_are_kept(shape, value):
    """Compiled with an open mask, called with a closed one: rows were as if they had none."""

    def attention(q, k, v, mask):
        return torch.softmax(q @ k.mT * 0.125 + mask, -1) @ v

    q, k, v = (torch.randn(2, 16, 8) for _ in range(3))
    fast = interpreted(attention)
    with torch.no_grad():
        fast(q, k, v, torch.zeros(shape))
        mask = torch.zeros(shape)
        mask.view(-1)[::3] = value
        actual, expected = fast(q, k, v, mask), attention(q, k, v, mask)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("function", [torch.log_softmax, torch.softmax], ids=["log_softmax", "softmax"])
def test_rows_that_are_masked_as_a_whole(function):
    fast = interpreted(lambda x, w, m: function(x @ w + m, -1))
    x, w, mask = torch.randn(8, 8), torch.randn(8, 8), torch.zeros(8, 1)
    with torch.no_grad():
        fast(x, w, mask)
        mask[4:] = LOWEST
        torch.testing.assert_close(fast(x, w, mask), function(x @ w + mask, -1))


def standardised(features, mean, deviation):
    norm = nn.BatchNorm1d(features).eval()
    norm.running_mean.fill_(mean)
    norm.running_var.fill_(deviation**2)
    return norm


@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("mean", [0.5, 1e4, 1.7e9])
def test_standardised_features(batch, mean):
    """(x - m) / s is exact where x is near m; folded into the linear layer it was off by 10^4 times eager's error."""
    model = nn.Sequential(standardised(16, mean, 2.0), nn.Linear(16, 64)).eval()
    x = mean + torch.randn(batch, 16)
    with torch.no_grad():
        actual = interpreted(model, freezing=True)(x)
        exact = in_double(model, x)
    assert error(actual, exact) <= 4 * error(model(x), exact) + 2e-6


def test_differences_before_a_convolution():
    conv = nn.Conv2d(3, 8, 1).eval()

    def centred(x, mean):
        return conv(x - mean)

    x = 3000.0 + torch.randn(2, 3, 6, 6)
    mean = torch.full((3, 1, 1), 3000.0)
    with torch.no_grad():
        actual = interpreted(centred, freezing=True)(x, mean)
        exact = in_double(conv, x.double() - mean.double())
    assert error(actual, exact) <= 4 * error(centred(x, mean), exact) + 2e-6


@pytest.mark.parametrize("special", [torch.inf, -torch.inf, torch.nan], ids=str)
@pytest.mark.parametrize("dims", [1, 2])
def test_infinities_stay_in_their_group(special, dims):
    """Merged groups multiply by zeros that were not there."""
    conv = (nn.Conv1d if dims == 1 else nn.Conv2d)(16, 16, 3, padding=1, groups=4).eval()
    x = torch.randn(2, 16, *[10] * dims)
    fast = interpreted(conv, freezing=True)
    with torch.no_grad():
        fast(x)
        x[(0, 1, *[5] * dims)] = special
        actual, expected = fast(x), conv(x)
    assert torch.equal(actual.isfinite(), expected.isfinite())
    finite = expected.isfinite()
    torch.testing.assert_close(actual[finite], expected[finite], rtol=1e-4, atol=1e-5)


def test_infinities_stay_in_their_sample():
    model = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1)).eval()
    x = torch.randn(2, 16, 12, 12)
    fast = interpreted(model, freezing=True)
    with torch.no_grad():
        fast(x)
        x[0, 0, 3, 3] = torch.inf
        torch.testing.assert_close(fast(x)[1], model(x)[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("index", [5, -1, 1000])
@pytest.mark.parametrize("freezing", [False, True])
def test_tables_check_their_own_bounds(index, freezing):
    """Of joined tables an index beyond one reads the next."""
    bags = nn.ModuleList(nn.EmbeddingBag(5, 8, mode="sum") for _ in range(4))

    def features(i, offsets):
        return torch.cat([bag(i[n], offsets) for n, bag in enumerate(bags)], 1)

    i, offsets = torch.randint(0, 5, (4, 12)), torch.arange(0, 12, 3)
    fast = interpreted(features, freezing=freezing)
    with torch.no_grad():
        torch.testing.assert_close(fast(i, offsets), features(i, offsets))
        i[1, 3] = index
        with pytest.raises(RuntimeError):
            features(i, offsets)
        with pytest.raises(RuntimeError):
            fast(i, offsets)


def test_a_stored_plan_is_judged_on_other_weights():
    """A product of these weights overflows float16; those that the plan was made with did not."""
    small, large = (nn.Sequential(nn.Linear(16, 64, bias=False), nn.Linear(64, 16, bias=False)) for _ in range(2))
    with torch.no_grad():
        for model, scale in ((small, 0.05), (large, 100.0)):
            for parameter in model.parameters():
                parameter.normal_(std=scale)
        small, large, x = small.half(), large.half(), torch.randn(8, 16).half() * 1e-3
        interpreted(small, freezing=True)(x)
        torch.compiler.reset()
        actual, expected = interpreted(large, freezing=True)(x), large(x)
    assert expected.isfinite().all()
    torch.testing.assert_close(actual, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("freezing", [False, True])
def test_programs_that_only_leave_calls_out_are_used(freezing):
    """The output becomes a call that was there: nothing is new."""
    x = torch.randn(64, 64)
    with torch.no_grad():
        actual = interpreted(lambda x: torch.relu(torch.relu(x)), freezing=freezing, **{"eqsat.strict": True})(x)
    assert torch.equal(actual, torch.relu(x))
    assert last().decision == "rewritten, 1 calls are gone"


@pytest.mark.parametrize("freezing", [False, True])
def test_equal_products_are_computed_once(freezing):
    """Without freezing Inductor computes each; with it they are merged anyway, and nothing is promised for it."""
    layer = nn.Linear(32, 32, bias=False)

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, context):
            for _ in range(3):
                x = torch.tanh(x + self.layer(context))
            return x

    model, inputs = Loop().eval(), (torch.randn(8, 32), torch.randn(8, 32))
    with torch.no_grad():
        actual = interpreted(model, freezing=freezing, **{"eqsat.strict": True})(*inputs)
        torch.testing.assert_close(actual, model(*inputs))
    assert last().changed is not freezing
    assert freezing or last().best_ms < 0.7 * last().base_ms


class Widened(nn.Module):
    """A transposed convolution with as many outputs as inputs, and what follows it."""

    def __init__(self, follower):
        super().__init__()
        self.widen, self.follower = nn.ConvTranspose2d(8, 8, 2, 2), follower
        self.register_buffer("scale", torch.rand(8, 1, 1) + 0.5)

    def forward(self, x):
        y = self.widen(x)
        return y * self.scale if self.follower is None else self.follower(y)


@pytest.mark.parametrize("strategy", ["none", "mcts"])
@pytest.mark.parametrize("norm", [False, True])
def test_what_follows_transposed_convolutions_is_not_folded_wrongly(strategy, norm):
    """Inductor folds factors onto the axis of the inputs, under freezing; rewritten or not, we must not."""
    follower = nn.BatchNorm2d(8) if norm else None
    if follower is not None:
        follower.running_var.uniform_(0.5, 2.0)
    model, x = Widened(follower).eval(), torch.randn(1, 8, 6, 6)
    with torch.no_grad():
        actual = interpreted(model, freezing=True, **{"eqsat.strategy": strategy, "eqsat.strict": True})(x)
        torch.testing.assert_close(actual, model(x), rtol=1e-4, atol=1e-5)
