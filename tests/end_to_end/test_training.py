"""Training: losses, gradients and running statistics are those of eager."""

import copy

import pytest
import torch
from torch import nn

from tests.end_to_end.models import Folding, Small, assert_close, compiled, interpreted, last, mlp

pytestmark = pytest.mark.usefixtures("fresh")
slow = pytest.mark.slow


def check_training(model, *inputs, compile_=compiled, **keywords):
    """Losses, gradients and buffers of a few compiled steps against eager ones."""
    eager, fast_model = copy.deepcopy(model), model
    fast = compile_(fast_model, **keywords)
    for _ in range(2):
        for module, call in ((eager, eager), (fast_model, fast)):
            module.zero_grad()
            call(*inputs).square().mean().backward()
        for (name, a), b in zip(eager.named_parameters(), fast_model.parameters(), strict=True):
            torch.testing.assert_close(b.grad, a.grad, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
        for a, b in zip(eager.buffers(), fast_model.buffers(), strict=True):
            torch.testing.assert_close(b, a)
        with torch.no_grad():
            for module in (eager, fast_model):
                for p in module.parameters():
                    p -= 0.1 * p.grad


@slow
def test_training_of_mlp():
    check_training(mlp(), torch.rand(8, 16), compile_=interpreted)


@slow
def test_training_of_folding_layers():
    check_training(Folding(), torch.rand(32, 64), freezing=True)


@slow
def test_training_updates_running_statistics():
    check_training(Small().train(), torch.rand(4, 3, 8, 8))


@slow
def test_checkpointed_layers():
    model, x = mlp(), torch.rand(8, 16, requires_grad=True)

    def loss(x):
        return torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False).square().mean()

    (actual,), (expected,) = torch.autograd.grad(interpreted(loss)(x), x), torch.autograd.grad(loss(x), x)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-6)


class Attention(nn.Module):
    """Self-attention: the gradient of the key's bias is zero but for rounding."""

    def __init__(self, width=32):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(width, width) for _ in range(4))

    def forward(self, x):
        q, k, v = (part(x).unflatten(-1, (4, -1)).transpose(1, 2) for part in self.parts[:3])
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.parts[3](y.transpose(1, 2).flatten(2))


class LastOfSequence(nn.Module):
    """The last position of two linear layers."""

    def __init__(self, width=32):
        super().__init__()
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, 256)

    def forward(self, x):
        return self.outer(torch.relu(self.inner(x)))[:, -1]


@slow
@pytest.mark.parametrize("make", [Attention, LastOfSequence])
def test_a_step_is_rewritten(make):
    torch.manual_seed(0)
    check_training(make(), torch.randn(4, 16, 32), compile_=interpreted)
    assert last().changed and not last().refused


@slow
def test_dropout_in_training():
    model = nn.Sequential(nn.Linear(16, 512), nn.Dropout(0.5)).train()
    with torch.no_grad():
        model[0].bias.fill_(10.0)
    y = compiled(model)(torch.rand(64, 16))
    dropped = (y == 0).float().mean().item()
    assert 0.45 < dropped < 0.55
    y.sum().backward()
    expected = (y != 0).float().sum(0) * 2
    assert_close(model[0].bias.grad, expected)


@slow
def test_running_statistics_without_gradients():
    model, x = Small().train(), torch.rand(4, 3, 8, 8)
    eager = copy.deepcopy(model)
    fast = compiled(model)
    with torch.no_grad():
        for _ in range(2):
            assert_close(fast(x), eager(x))
    for a, b in zip(eager.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(b, a)
