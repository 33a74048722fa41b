"""Recipes of training: the losses of twenty steps are those of eager, and no graph is refused."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.end_to_end.models import DETERMINISTIC
from torch_eqsat import report as reports

pytestmark = [pytest.mark.usefixtures("fresh"), pytest.mark.slow]
WIDTH, STEPS = 32, 20
REFUSALS = ("saves", "rewritten")  # a graph is rewritten, or left for its price


class Adapted(nn.Module):
    """A linear layer that stays, and an adapter of low rank that is trained."""

    def __init__(self, width=WIDTH, rank=4):
        super().__init__()
        self.whole = nn.Linear(width, width).requires_grad_(False)
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)

    def forward(self, x):
        return self.whole(x) + 2.0 * self.up(self.down(x))


class Layer(nn.Module):
    """A layer of a transformer, whose keys have a bias."""

    def __init__(self, checkpointed=False):
        super().__init__()
        self.parts, self.norm = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4)), nn.LayerNorm(WIDTH)
        self.wide, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.checkpointed = checkpointed

    def layer(self, x):
        q, k, v = (part(self.norm(x)).unflatten(-1, (4, -1)).transpose(1, 2) for part in self.parts[:3])
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.parts[3](y.transpose(1, 2).flatten(2))
        return x + self.narrow(functional.gelu(self.wide(x)))

    def forward(self, x):
        if self.checkpointed:
            x = torch.utils.checkpoint.checkpoint(self.layer, x, use_reentrant=False)
        return self.layer(x)[:, -1]


RECIPES = {
    "adapter": (lambda: nn.Sequential(Adapted(), nn.ReLU(), Adapted()), 1),
    "accumulation": (Layer, 4),
    "checkpointing": (lambda: Layer(checkpointed=True), 1),
}


def compiled(function):
    return torch.compile(function, backend="eqsat_mcts_eager", options={**DETERMINISTIC, "eqsat.strict": True})


def losses(model, call, every, data, step=lambda optimiser: optimiser.step):
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    update, found = step(optimiser), []
    for number, (x, y) in enumerate(data, 1):
        loss = (call(x) - y).square().mean() / every
        loss.backward()
        found.append(loss.item())
        if number % every == 0:
            update()
            optimiser.zero_grad()
    return found


def check(name, step=lambda optimiser: optimiser.step):
    make, every = RECIPES[name]
    model = make().train()
    other = copy.deepcopy(model)
    x = torch.randn(STEPS, 4, 12, WIDTH)
    data = list(zip(x, x.mean(2) if name != "adapter" else x.flip(-1), strict=True))
    ours = losses(other, compiled(other), every, data, step)
    torch.testing.assert_close(ours, losses(model, model, every, data), rtol=1e-4, atol=1e-6)
    for report in reports.last_reports():
        assert not report.refused and any(word in report.decision for word in REFUSALS)


@pytest.mark.parametrize("name", RECIPES)
def test_losses_of_twenty_steps(name):
    check(name)


def test_a_compiled_optimiser():
    check("adapter", step=lambda optimiser: compiled(optimiser.step))


def test_gradients_of_a_function():
    layer, x = Layer(), torch.randn(4, 12, WIDTH)
    weights = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(weights, x):
        return torch.func.functional_call(layer, weights, (x,)).square().mean()

    ours, eager = compiled(torch.func.grad(loss))(weights, x), torch.func.grad(loss)(weights, x)
    for name in weights:
        torch.testing.assert_close(ours[name], eager[name], rtol=1e-3, atol=1e-5)
