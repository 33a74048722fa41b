"""Right on every input: kinds of results that were silently wrong, refused or raised, each compared with eager.

Graphs are run by the interpreter, and planned at estimated prices, so that nothing here depends on the clock.
"""

import copy

import pytest
import torch
import torch.nn.functional as functional
from torch import nn

from torch_eqsat import report as reports

pytestmark = pytest.mark.usefixtures("fresh")

OPTIONS = {
    "eqsat.deterministic": True,
    "eqsat.seconds": 1.0,
    "eqsat.min_saving": 0.0,
    "force_disable_caches": True,
}
LOWEST = torch.finfo(torch.float32).min


def compiled(function, **options):
    return torch.compile(function, backend="eqsat_mcts_eager", options={**OPTIONS, **options})


def last():
    return reports.last_reports()[-1]


def in_double(module, *inputs):
    return copy.deepcopy(module).double()(*(x.double() for x in inputs))


def error(actual, exact):
    return float(((actual.double() - exact).abs().max() / exact.abs().max()).detach())


# Masks


@pytest.mark.parametrize("shape", [(2, 16, 1), (2, 1, 16), (16, 1), (1, 16, 16)], ids=str)
@pytest.mark.parametrize("value", [LOWEST, -torch.inf, -1e9], ids=["lowest", "infinity", "-1e9"])
def test_masks_are_kept(shape, value):
    """Compiled with an open mask, called with a closed one: rows were as if they had none."""

    def attention(q, k, v, mask):
        return torch.softmax(q @ k.mT * 0.125 + mask, -1) @ v

    q, k, v = (torch.randn(2, 16, 8) for _ in range(3))
    fast = compiled(attention)
    with torch.no_grad():
        fast(q, k, v, torch.zeros(shape))
        mask = torch.zeros(shape)
        mask.view(-1)[::3] = value
        actual, expected = fast(q, k, v, mask), attention(q, k, v, mask)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("function", [torch.log_softmax, torch.softmax], ids=["log_softmax", "softmax"])
def test_rows_that_are_masked_as_a_whole(function):
    fast = compiled(lambda x, w, m: function(x @ w + m, -1))
    x, w, mask = torch.randn(8, 8), torch.randn(8, 8), torch.zeros(8, 1)
    with torch.no_grad():
        fast(x, w, mask)
        mask[4:] = LOWEST
        torch.testing.assert_close(fast(x, w, mask), function(x @ w + mask, -1))


# Cancellation


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
        actual = compiled(model, freezing=True)(x)
        exact = in_double(model, x)
    assert error(actual, exact) <= 4 * error(model(x), exact) + 2e-6


def test_differences_before_a_convolution():
    conv = nn.Conv2d(3, 8, 1).eval()

    def centred(x, mean):
        return conv(x - mean)

    x = 3000.0 + torch.randn(2, 3, 6, 6)
    mean = torch.full((3, 1, 1), 3000.0)
    with torch.no_grad():
        actual = compiled(centred, freezing=True)(x, mean)
        exact = in_double(conv, x.double() - mean.double())
    assert error(actual, exact) <= 4 * error(centred(x, mean), exact) + 2e-6


# Infinities


@pytest.mark.parametrize("special", [torch.inf, -torch.inf, torch.nan], ids=str)
@pytest.mark.parametrize("dims", [1, 2])
def test_infinities_stay_in_their_group(special, dims):
    """Merged groups multiply by zeros that were not there."""
    conv = (nn.Conv1d if dims == 1 else nn.Conv2d)(16, 16, 3, padding=1, groups=4).eval()
    x = torch.randn(2, 16, *[10] * dims)
    fast = compiled(conv, freezing=True)
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
    fast = compiled(model, freezing=True)
    with torch.no_grad():
        fast(x)
        x[0, 0, 3, 3] = torch.inf
        torch.testing.assert_close(fast(x)[1], model(x)[1], rtol=1e-4, atol=1e-5)


# Indices


@pytest.mark.parametrize("index", [5, -1, 1000])
@pytest.mark.parametrize("freezing", [False, True])
def test_tables_check_their_own_bounds(index, freezing):
    """Of joined tables an index beyond one reads the next."""
    bags = nn.ModuleList(nn.EmbeddingBag(5, 8, mode="sum") for _ in range(4))

    def features(i, offsets):
        return torch.cat([bag(i[n], offsets) for n, bag in enumerate(bags)], 1)

    i, offsets = torch.randint(0, 5, (4, 12)), torch.arange(0, 12, 3)
    fast = compiled(features, freezing=freezing)
    with torch.no_grad():
        torch.testing.assert_close(fast(i, offsets), features(i, offsets))
        i[1, 3] = index
        with pytest.raises(RuntimeError):
            features(i, offsets)
        with pytest.raises(RuntimeError):
            fast(i, offsets)


# Weights


def test_a_stored_plan_is_judged_on_other_weights():
    """A product of these weights overflows float16; those that the plan was made with did not."""
    small, large = (nn.Sequential(nn.Linear(16, 64, bias=False), nn.Linear(64, 16, bias=False)) for _ in range(2))
    with torch.no_grad():
        for model, scale in ((small, 0.05), (large, 100.0)):
            for parameter in model.parameters():
                parameter.normal_(std=scale)
        small, large, x = small.half(), large.half(), torch.randn(8, 16).half() * 1e-3
        compiled(small, freezing=True)(x)
        torch.compiler.reset()
        actual, expected = compiled(large, freezing=True)(x), large(x)
    assert expected.isfinite().all()
    torch.testing.assert_close(actual, expected, rtol=2e-2, atol=2e-2)


# Training


class Attention(nn.Module):
    """The gradient of the bias of keys is zero but for rounding."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x):
        return self.out(torch.softmax(self.q(x) @ self.k(x).mT / 4, -1) @ self.v(x))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (Attention(), (4, 8, 16)),
        (nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Linear(16, 4)), (8, 16)),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)), (4, 3, 8, 8)),
    ],
    ids=["attention", "linear and norm", "convolution and norm"],
)
def test_gradients_that_are_zero_but_for_rounding(model, shape):
    expected, x = copy.deepcopy(model), torch.randn(shape)
    compiled(model)(x).square().sum().backward()
    expected(x).square().sum().backward()
    assert not last().refused
    for actual, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, wanted.grad, rtol=1e-3, atol=1e-4)


def test_one_weight_in_both_directions():
    """A product of the forward graph joined with one of the backward graph cannot be cut apart again."""
    weight, x = nn.Parameter(torch.randn(16, 32) * 0.1), torch.randn(8, 16)

    def autoencoder(x):
        return torch.relu(x @ weight) @ weight.T

    compiled(autoencoder, **{"eqsat.strict": True})(x).square().sum().backward()
    gradient, weight.grad = weight.grad, None
    autoencoder(x).square().sum().backward()
    torch.testing.assert_close(gradient, weight.grad, rtol=1e-4, atol=1e-4)


def test_indices_of_a_table_of_one_row():
    table, first, second = nn.Embedding(1, 16), torch.randn(16, 16), torch.randn(16, 16)

    def function(x, i):
        return functional.linear(x, first) + functional.linear(x, second) + table(i)

    x, i = torch.randn(8, 16, requires_grad=True), torch.zeros(8, dtype=torch.long)
    compiled(function, **{"eqsat.strict": True})(x, i).sum().backward()
    assert last().changed


# Outputs, operators


def two(x, a, b):
    return functional.linear(x, a) + functional.linear(x, b)


OUTPUTS = {
    "transposed": lambda x, a, b: two(x, a, b).t(),
    "some columns": lambda x, a, b: two(x, a, b)[:, :10],
    "every second": lambda x, a, b: two(x, a, b)[:, ::2],
    "copies": lambda x, a, b: two(x, a, b)[:, None].expand(8, 3, 16),
    "rotated": lambda x, a, b: two(x, a, b).view(2, 4, 16).permute(2, 0, 1),
    "complex": lambda x, a, b: torch.view_as_complex(two(x, a, b).view(8, 8, 2)),
    "spectrum": lambda x, a, b: torch.fft.rfft(two(x, a, b)),
    "diagonal": lambda x, a, b: two(x, a, b)[:, :8].diagonal(),
}


@pytest.mark.parametrize("freezing", [False, True])
@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_keep_their_strides_and_graphs_their_rewriting(name, freezing):
    x, a, b = torch.randn(8, 16), torch.randn(16, 16), torch.randn(16, 16)
    with torch.no_grad():
        actual = compiled(OUTPUTS[name], freezing=freezing, **{"eqsat.strict": True})(x, a, b)
        expected = OUTPUTS[name](x, a, b)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    assert actual.stride() == expected.stride()
    assert not last().refused


def test_kernels_with_the_identity_without_freezing():
    """What laws make of numbers alone stopped Inductor."""
    first, second = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 1, bias=False)

    def block(x):
        return first(x) + second(x) + x

    x = torch.randn(2, 8, 9, 9)
    with torch.no_grad():
        actual = compiled(block, **{"eqsat.strict": True})(x)
        torch.testing.assert_close(actual, block(x), rtol=1e-4, atol=1e-5)


@torch.library.custom_op("eqsat_trust::logged", mutates_args=())
def logged(x: torch.Tensor) -> torch.Tensor:
    LOG.append(x.dtype)
    return x.cos()


@logged.register_fake
def _(x):
    return torch.empty_like(x)


LOG: list[torch.dtype] = []


def test_operators_with_effects_run_as_often_as_without_us():
    x, a, b = torch.randn(8, 16), torch.randn(16, 16), torch.randn(16, 16)
    LOG.clear()
    with torch.no_grad():
        actual = compiled(lambda x: logged(two(x, a, b)))(x)
    assert [torch.float32] == LOG
    torch.testing.assert_close(actual, two(x, a, b).cos(), rtol=1e-4, atol=1e-4)


def standardised_spectrum(x):
    y = torch.fft.rfft2(x)
    return ((y - y.mean(-1, keepdim=True)) * 0.5).abs().sum()


@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex operators")
def test_views_in_another_dtype_get_their_strides():
    """Sums of complex numbers are taken as real ones, whose operands must not be copies of one element."""
    x = torch.randn(4, 6, 6, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(standardised_spectrum(x), x)
    result = compiled(standardised_spectrum, **{"eqsat.strict": True})(x)
    (gradient,) = torch.autograd.grad(result, x)
    torch.testing.assert_close(gradient, expected)
    assert not last().refused


def unshuffled(x):
    return functional.pixel_unshuffle(x, 1).transpose(0, -1).flatten()


@pytest.mark.parametrize("freezing", [False, True])
def test_a_copy_that_goes_leaves_no_view_that_needed_it(freezing):
    x = torch.randn(1, 1, 6, 6)
    with torch.no_grad():
        actual = compiled(unshuffled, freezing=freezing, **{"eqsat.strict": True})(x)
    torch.testing.assert_close(actual, unshuffled(x))
    assert not last().refused


@pytest.mark.filterwarnings("ignore:Torchinductor does not support")
def test_complex_sums_of_copies():
    """Inductor removes a sum with zero whatever strides it had; a view in another dtype of what was left raised."""

    def function(x):
        y = torch.linalg.eig(x)[0]
        return (y * 2 + y * 0.5).sum(-1)

    x = torch.rand(5, 5, requires_grad=True)
    for strategy in ("saturation", "mcts"):
        torch.compiler.reset()
        actual = compiled(function, **{"eqsat.strategy": strategy})(x)
        gradients = [torch.autograd.grad(torch.view_as_real(y).sum(), x)[0] for y in (actual, function(x))]
        torch.testing.assert_close(*gradients)
