"""Right on every input: outputs and operators that were silently wrong, refused or raised, each compared with eager.

Graphs are run by the interpreter, and planned at estimated prices, so that nothing here depends on the clock.
"""

import pytest
import torch
import torch.nn.functional as functional
from torch import nn

from tests.end_to_end.models import interpreted, last

pytestmark = pytest.mark.usefixtures("fresh")


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
        actual = interpreted(OUTPUTS[name], freezing=freezing, **{"eqsat.strict": True})(x, a, b)
        expected = OUTPUTS[name](x, a, b)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    assert actual.stride() == expected.stride()
    assert not last().refused


@pytest.mark.slow
def test_kernels_with_the_identity_without_freezing():
    """What laws make of numbers alone stopped Inductor."""
    first, second = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 1, bias=False)

    def block(x):
        return first(x) + second(x) + x

    x = torch.randn(2, 8, 9, 9)
    with torch.no_grad():
        actual = interpreted(block, **{"eqsat.strict": True})(x)
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
        actual = interpreted(lambda x: logged(two(x, a, b)))(x)
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
    result = interpreted(standardised_spectrum, **{"eqsat.strict": True})(x)
    (gradient,) = torch.autograd.grad(result, x)
    torch.testing.assert_close(gradient, expected)
    assert not last().refused


def unshuffled(x):
    return functional.pixel_unshuffle(x, 1).transpose(0, -1).flatten()


@pytest.mark.parametrize("freezing", [False, True])
def test_a_copy_that_goes_leaves_no_view_that_needed_it(freezing):
    x = torch.randn(1, 1, 6, 6)
    with torch.no_grad():
        actual = interpreted(unshuffled, freezing=freezing, **{"eqsat.strict": True})(x)
    torch.testing.assert_close(actual, unshuffled(x))
    assert not last().refused
