"""Models that are drawn from blocks by a seed: what prices are tried on that nobody chose.

A name such as ``drawn-17-live`` is a whole model: its blocks, sizes and batch come from the number, and the last word
says how it runs: frozen, with live weights, as a training step, or frozen in bfloat16 (half).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from bench.models.cases import Built, Case

WAYS = ("live", "frozen", "training", "half")
_NAME = re.compile(rf"drawn-(\d+)-({'|'.join(WAYS)})")
WIDTHS, LENGTHS, BATCHES = (64, 128, 256, 512, 1024), (1, 4, 16, 77, 128), (1, 1, 2, 8, 64)
CHANNELS, IMAGES = (16, 32, 64, 128), (8, 14, 28, 32, 56)
MOST_ELEMENTS = 1 << 20  # of an activation: larger ones take a second a call


def drawn_name(seed: int, way: str) -> str:
    """The name of a drawn case."""
    return f"drawn-{seed}-{way}"


def drawn_case(name: str) -> Case | None:
    """The case of a name, or None for a name of another kind."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    seed, way = int(match[1]), match[2]
    return Case(name, 0.0, "drawn from blocks", lambda: _drawn(seed, way), way == "training")


def _drawn(seed: int, way: str) -> Built:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    images = rng.random() < 0.35
    module, inputs = _of_images(rng) if images else _of_tokens(rng)
    return in_way(module, inputs, way)


def in_way(module: nn.Module, inputs: tuple[Tensor, ...], way: str) -> Built:
    """A model and its inputs in bfloat16 for half, and with a loss for training."""
    if way == "half":
        return module.bfloat16(), tuple(x.bfloat16() if x.is_floating_point() else x for x in inputs)
    return (_Loss(module) if way == "training" else module), inputs


class _Loss(nn.Module):
    """The mean square of what a module computes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        loss: Tensor = self.module(x).square().mean()
        return loss


def _of_tokens(rng: random.Random) -> Built:
    width, batch = rng.choice(WIDTHS), rng.choice(BATCHES)
    length = rng.choice([n for n in LENGTHS if n * batch * width <= MOST_ELEMENTS])
    blocks: list[nn.Module] = []
    if rng.random() < 0.3:
        blocks.append(nn.Embedding(500, width))
        x = torch.randint(500, (batch, length))
    else:
        x = torch.randn(batch, length, width)
    blocks += [rng.choice(TOKEN_BLOCKS)(rng, width) for _ in range(rng.randint(1, 4))]
    if rng.random() < 0.4:
        blocks.append(rng.choice(HEADS)(rng, width))
    return nn.Sequential(*blocks), (x,)


def _of_images(rng: random.Random) -> Built:
    channels, batch = rng.choice(CHANNELS), rng.choice(BATCHES)
    size = rng.choice([n for n in IMAGES if n * n * batch * channels <= MOST_ELEMENTS])
    blocks = [rng.choice(IMAGE_BLOCKS)(rng, channels) for _ in range(rng.randint(1, 4))]
    return nn.Sequential(*blocks), (torch.randn(batch, channels, size, size),)


class Applied(nn.Module):
    """A block that is a function of its parts."""

    def __init__(self, function: Callable[..., Any], *parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.function = function
        self.names: list[str] = []
        for number, part in enumerate(parts):
            name = f"part{number}"
            self.names.append(name)
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *(getattr(self, name) for name in self.names))


Block = Callable[[random.Random, int], nn.Module]


def _activation(rng: random.Random) -> Callable[[Tensor], Tensor]:
    return rng.choice((functional.relu, functional.gelu, functional.silu, torch.tanh, torch.sigmoid))


def _rms(x: Tensor, scale: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * scale


def _linear(rng: random.Random, width: int) -> nn.Module:
    return nn.Linear(width, width, bias=rng.random() < 0.5)


def _mlp(rng: random.Random, width: int) -> nn.Module:
    function, hidden = _activation(rng), width * rng.choice((1, 2, 4))
    return Applied(lambda x, a, b: x + b(function(a(x))), nn.Linear(width, hidden), nn.Linear(hidden, width))


def _gated(rng: random.Random, width: int) -> nn.Module:
    function, hidden = _activation(rng), width * rng.choice((1, 2))
    ins = [nn.Linear(width, hidden, bias=False) for _ in range(2)]
    out = nn.Linear(hidden, width, bias=False)
    scale = torch.rand(width)
    return Applied(lambda x, a, b, c, s: x + c(function(a(_rms(x, s))) * b(_rms(x, s))), *ins, out, scale)


def _norm(rng: random.Random, width: int) -> nn.Module:
    return nn.LayerNorm(width) if rng.random() < 0.5 else Applied(_rms, torch.rand(width))


def _attention(rng: random.Random, width: int) -> nn.Module:
    heads, fused, causal = rng.choice((1, 2, 4)), rng.random() < 0.6, rng.random() < 0.3
    parts = [nn.Linear(width, width, bias=rng.random() < 0.5) for _ in range(4)]

    def attend(x: Tensor, q: nn.Module, k: nn.Module, v: nn.Module, out: nn.Module) -> Tensor:
        batch, length, _ = x.shape
        a, b, c = (f(x).view(batch, length, heads, -1).transpose(1, 2) for f in (q, k, v))
        if fused:
            y = functional.scaled_dot_product_attention(a, b, c, is_causal=causal)
        else:
            y = (a @ b.transpose(-2, -1) * a.shape[-1] ** -0.5).softmax(-1) @ c
        return x + out(y.transpose(1, 2).reshape(batch, length, -1))

    return Applied(attend, *parts)


def _low_rank(rng: random.Random, width: int) -> nn.Module:
    rank = rng.choice((4, 16))
    parts = nn.Linear(width, width), nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)
    return Applied(lambda x, w, a, b: w(x) + 0.5 * b(a(x)), *parts)


def _experts(rng: random.Random, width: int) -> nn.Module:
    count = rng.choice((2, 4))
    experts = nn.ModuleList(nn.Linear(width, width) for _ in range(count))
    gate = nn.Linear(width, count)

    def mix(x: Tensor, gate: nn.Module, experts: nn.ModuleList) -> Tensor:
        shares = gate(x).softmax(-1)
        return sum((shares[..., i : i + 1] * expert(x) for i, expert in enumerate(experts)), torch.zeros_like(x))

    return Applied(mix, gate, experts)


def _recurrence(rng: random.Random, width: int) -> nn.Module:
    steps, gates = rng.choice((2, 4)), rng.random() < 0.5
    parts = [nn.Linear(width, width) for _ in range(4)]

    def run(x: Tensor, a: nn.Module, b: nn.Module, c: nn.Module, d: nn.Module) -> Tensor:
        h = torch.zeros_like(x)
        for _ in range(steps):
            new = torch.tanh(a(x) + b(h))
            share = torch.sigmoid(c(x) + d(h)) if gates else 0.5
            h = share * h + (1 - share) * new
        return h

    return Applied(run, *parts)


def _products(rng: random.Random, width: int) -> nn.Module:
    """A chain of weights without a function between, and a scale."""
    weights = [torch.randn(width, width) / width**0.5 for _ in range(rng.choice((2, 3)))]
    scale = torch.rand(width)

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        *weights_, scale = weights
        for weight in weights_:
            x = x @ weight
        return x * scale

    return Applied(run, *weights, scale)


def _moments(rng: random.Random, width: int) -> nn.Module:
    return Applied(lambda x: (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-3).sqrt())


def _last(rng: random.Random, width: int) -> nn.Module:
    return Applied(lambda x, w: w(x)[:, -1:], nn.Linear(width, 4 * width))


def _mean(rng: random.Random, width: int) -> nn.Module:
    return Applied(lambda x, w: w(x).mean(1), nn.Linear(width, width))


TOKEN_BLOCKS: list[Block] = [
    _linear, _mlp, _gated, _norm, _attention, _low_rank, _experts, _recurrence, _products, _moments,
]  # fmt: skip
HEADS: list[Block] = [_last, _mean]


def _convolution(rng: random.Random, channels: int) -> nn.Module:
    window, groups = rng.choice((1, 3, 3, 5)), rng.choice((1, 1, channels))
    conv = nn.Conv2d(channels, channels, window, padding=window // 2, groups=groups, bias=rng.random() < 0.5)
    function = _activation(rng)
    return Applied(lambda x, c, n: function(n(c(x))), conv, nn.BatchNorm2d(channels))


def _branches(rng: random.Random, channels: int) -> nn.Module:
    """Convolutions of one image, added or joined and mixed."""
    convs = [nn.Conv2d(channels, channels, w, padding=w // 2) for w in rng.choices((1, 3), k=rng.choice((2, 3)))]
    if rng.random() < 0.5:
        return Applied(lambda x, *cs: functional.relu(sum((c(x) for c in cs), x)), *convs)
    mix = nn.Conv2d(channels * len(convs), channels, 1)
    return Applied(lambda x, m, *cs: m(torch.cat([functional.relu(c(x)) for c in cs], 1)), mix, *convs)


def _residual(rng: random.Random, channels: int) -> nn.Module:
    convs = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)]
    return Applied(lambda x, a, b: functional.relu(x + b(functional.relu(a(x)))), *convs)


def _resampled(rng: random.Random, channels: int) -> nn.Module:
    mode = rng.choice(("nearest", "bilinear"))
    conv = nn.Conv2d(channels, channels, rng.choice((1, 3)), padding=0)
    return Applied(lambda x, c: functional.avg_pool2d(c(functional.interpolate(x, scale_factor=2, mode=mode)), 2), conv)


def _squeezed(rng: random.Random, channels: int) -> nn.Module:
    small = max(4, channels // 4)
    parts = nn.Conv2d(channels, small, 1), nn.Conv2d(small, channels, 1)
    return Applied(lambda x, a, b: x * torch.sigmoid(b(functional.relu(a(x.mean((2, 3), keepdim=True))))), *parts)


def _pooled(rng: random.Random, channels: int) -> nn.Module:
    pool = functional.max_pool2d if rng.random() < 0.5 else functional.avg_pool2d
    return Applied(lambda x: pool(functional.relu(x), 3, 1, 1))


def _widened(rng: random.Random, channels: int) -> nn.Module:
    parts = nn.ConvTranspose2d(channels, channels, 2, 2), nn.Conv2d(channels, channels, 2, 2)
    return Applied(lambda x, a, b: b(functional.relu(a(x))), *parts)


IMAGE_BLOCKS: list[Block] = [_convolution, _branches, _residual, _resampled, _squeezed, _pooled, _widened]
