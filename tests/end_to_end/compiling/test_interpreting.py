"""The backend that runs rewritten graphs without generating code."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from torch_eqsat import report as reports

pytestmark = pytest.mark.usefixtures("fresh")
OPTIONS = {"eqsat.strict": True, "eqsat.deterministic": True, "eqsat.seconds": 0.5, "eqsat.min_saving": 0}


def compiled(model, **options):
    return torch.compile(model, backend="eqsat_mcts_eager", options={**OPTIONS, **options})


@pytest.fixture(autouse=True)
def no_code(monkeypatch):
    """Nothing may be generated."""

    def fail(*_, **__):
        raise AssertionError("code is generated")

    monkeypatch.setattr("torch._inductor.graph.GraphLowering.run", fail)


def products(a, b, c):
    return (a @ b) @ c


def check(function, *inputs, rewritten=True, **options):
    copies = copy.deepcopy(inputs)
    actual, expected = compiled(function, **options)(*inputs), function(*copies)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(inputs, copies)
    assert any(report.changed for report in reports.last_reports()) == rewritten
    return actual


def test_inference():
    with torch.no_grad():
        check(products, torch.randn(256, 256), torch.randn(256, 256), torch.randn(256, 2))


def test_frozen_weights():
    model = nn.Sequential(nn.Linear(64, 512), nn.Linear(512, 64)).eval()
    with torch.no_grad():
        check(model, torch.randn(32, 64), freezing=True)
    assert reports.last_reports()[0].frozen


def test_results_lie_as_eager_ones():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3)).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert compiled(model, freezing=True)(x).stride() == model(x).stride()


def test_results_that_repeat_elements():
    model = nn.Conv2d(3, 8, 3).eval()
    x = torch.randn(2, 3, 8, 8)

    def repeated(x):
        return model(x).unsqueeze(2).expand(-1, -1, 3, -1, -1)

    with torch.no_grad():
        torch.testing.assert_close(compiled(repeated, freezing=True)(x), repeated(x))


def test_frozen_convolutions():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 4)).eval()
    with torch.no_grad():
        compiled(model, freezing=True)(torch.randn(2, 3, 8, 8))
        torch.testing.assert_close(
            model(torch.ones(2, 3, 8, 8)), compiled(model, freezing=True)(torch.ones(2, 3, 8, 8))
        )


def test_forward_and_backward():
    a, b, c = (torch.randn(shape, requires_grad=True) for shape in ((256, 256), (256, 256), (256, 2)))
    check(products, a, b, c).sum().backward()
    gradients = [x.grad for x in (a, b, c)]
    expected = torch.autograd.grad(products(a, b, c).sum(), (a, b, c))
    torch.testing.assert_close(gradients, list(expected), rtol=1e-3, atol=1e-2)


def test_mutated_inputs():
    def function(buffer, a, b, c):
        buffer.add_(1)
        return (a @ b) @ c + buffer

    with torch.no_grad():
        check(function, torch.zeros(256, 2), torch.randn(256, 256), torch.randn(256, 256), torch.randn(256, 2))


def test_running_statistics_of_training():
    model, x = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), torch.randn(8, 4)
    eager = copy.deepcopy(model)
    compiled(model, **{"eqsat.strategy": "none"})(x).square().sum().backward()
    eager(x).square().sum().backward()
    torch.testing.assert_close(list(model.buffers()), list(eager.buffers()))
    torch.testing.assert_close(model[0].weight.grad, eager[0].weight.grad, rtol=1e-3, atol=1e-4)


def test_random_numbers_are_those_of_eager():
    def noisy(x):
        return functional.dropout(x, 0.5, training=True) + torch.rand_like(x)

    function = compiled(noisy, **{"eqsat.strategy": "none"})
    torch.manual_seed(1)
    actual = function(torch.ones(64))
    torch.manual_seed(1)
    torch.testing.assert_close(actual, noisy(torch.ones(64)))


def test_attention_over_images_that_lie_channels_last():
    """The kernel of attention reads operands without a dense last axis as if they had one."""

    def attend(x):
        q, k, v = x.permute(0, 2, 3, 1).reshape(2, 16, 3, 4, 8).permute(2, 0, 3, 1, 4)
        turned = (t.transpose(-1, -2).contiguous().transpose(-1, -2) for t in (q, k, v))
        return functional.scaled_dot_product_attention(*turned)

    with torch.no_grad():
        x = torch.randn(2, 96, 4, 4)
        torch.testing.assert_close(compiled(attend, **{"eqsat.strategy": "none"})(x), attend(x), rtol=1e-4, atol=1e-5)


def test_options_are_checked():
    with pytest.raises(Exception, match=r"did you mean 'eqsat\.seconds'"):
        compiled(torch.relu, **{"eqsat.secnds": 1})(torch.ones(3))


@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)
def test_outputs_whose_sizes_depend_on_data():
    def function(mask, a, b, c):
        y = (a @ b) @ c
        return y, y[mask.nonzero().squeeze(1)]

    with torch.no_grad():
        check(function, torch.arange(256) % 3 == 0, torch.randn(256, 256), torch.randn(256, 256), torch.randn(256, 2))


def test_outputs_of_symbolic_sizes_gain_no_guards():
    """Whether rows lie alike does not depend on how many there are, one or none among them."""

    def function(x, a, b, c):
        y = (a @ b) @ c
        return y, x @ y, x + 1

    weights = torch.randn(256, 256), torch.randn(256, 256), torch.randn(256, 2)
    fast = compiled(function)
    with torch.no_grad():
        for rows in (3, 2, 7):
            x = torch.randn(rows, 256)
            torch._dynamo.mark_dynamic(x, 0)
            torch.testing.assert_close(fast(x, *weights), function(x, *weights), rtol=1e-3, atol=1e-1)
    assert reports.last_reports()[-1].changed
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_numbers_are_reduced():
    def function(number, a, b, c):
        return (a @ b) @ c, number.sum(0), number.softmax(-1), torch.logsumexp(number, 0)

    with torch.no_grad():
        check(function, torch.tensor(2.0), torch.randn(256, 256), torch.randn(256, 256), torch.randn(256, 2))


@pytest.mark.filterwarnings("ignore:Torchinductor does not support")
def test_packed_convolutions_of_complex_numbers():
    """Their real parts are views with gaps, which oneDNN read as if there were none."""

    class Widened(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.randn(3, 3, 3, 3, dtype=torch.complex64))
            self.b = torch.nn.Parameter(torch.randn(3, dtype=torch.complex64))

        def forward(self, x):
            return torch.nn.functional.conv_transpose2d(x, self.w, self.b, stride=2, padding=2, output_padding=1)

    model, x = Widened().eval(), torch.randn(1, 3, 4, 4, dtype=torch.complex64)
    with torch.no_grad():
        actual = compiled(model, freezing=True, **{"eqsat.strategy": "none"})(x)
        torch.testing.assert_close(actual, model(x), rtol=1e-4, atol=1e-4)
