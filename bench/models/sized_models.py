"""Small models that compute with their sizes, drawn from blocks by a seed: what symbolic sizes are tried on.

Tokens are (batch, length, width) and images (batch, channels, height, width); all but the width and the channels may be
symbols. Blocks of `drawn_models` stand among those of this module.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from bench.models.drawn_models import HEADS, IMAGE_BLOCKS, TOKEN_BLOCKS, Applied, Block

WIDTHS, CHANNELS = (16, 32), (4, 8)
MOST_BLOCKS = 3
Sizes = tuple[int, ...]
"""The batch, and the length or the height and width."""


class SizedModel:
    """The model of ``seed``: a module, and inputs of any sizes for it."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        torch.manual_seed(seed)
        self.seed, self.images = seed, rng.random() < 0.3
        self.width = rng.choice(CHANNELS if self.images else WIDTHS)
        blocks, heads = (SIZED_IMAGES, IMAGE_HEADS) if self.images else (SIZED_TOKENS, SIZED_HEADS)
        count = rng.randint(1, MOST_BLOCKS)
        drawn = [rng.choice(blocks)(rng, self.width) for _ in range(count)]
        if rng.random() < 0.5:
            drawn.append(rng.choice(heads)(rng, self.width))
        self.module = nn.Sequential(*drawn)

    def input(self, sizes: Sizes) -> Tensor:
        """A random input of a batch, and a length or the height and width of an image."""
        generator = torch.Generator().manual_seed(sum(sizes))
        batch, *rest = sizes
        shape = (batch, self.width, *rest) if self.images else (batch, *rest, self.width)
        return torch.randn(shape, generator=generator)


def _of(function: Callable[..., object], weights: int = 0) -> Block:
    """A block that is a function of its input and of ``weights`` square matrices."""

    def make(rng: random.Random, width: int) -> nn.Module:
        return Applied(function, *(torch.randn(width, width) / width**0.5 for _ in range(weights)))

    return make


def _causal(x: Tensor, w: Tensor) -> Tensor:
    length = x.shape[1]
    closed = torch.ones(length, length, dtype=torch.bool).triu(1)
    scores = (x @ w @ x.mT / x.shape[-1] ** 0.5).masked_fill(closed, -torch.inf)
    return x + scores.softmax(-1) @ x


def _pairs(x: Tensor, w: Tensor) -> Tensor:
    doubled = (x @ w).repeat_interleave(2, dim=1)
    return doubled.view(x.shape[0], x.shape[1], 2, x.shape[2]).mean(2)


def _running_mean(x: Tensor) -> Tensor:
    return x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]


def _outer(x: Tensor, w: Tensor) -> Tensor:
    return torch.softmax(x @ x.mT, -1) @ (x @ w)


def _looked_up(x: Tensor, w: Tensor) -> Tensor:
    return x + w[torch.arange(x.shape[1]) % w.shape[0]]


def _grid(x: Tensor) -> Tensor:
    rows, columns = torch.arange(x.shape[2]) / x.shape[2], torch.arange(x.shape[3]) / x.shape[3]
    return x + rows[:, None] * columns


def _positions(x: Tensor) -> Tensor:
    steps = torch.arange(x.shape[1], dtype=x.dtype)
    return x + torch.sin(steps[:, None] * torch.arange(x.shape[2]))


SIZED_TOKENS: list[Block] = [
    *TOKEN_BLOCKS,
    _of(lambda x, w: (x.reshape(-1, x.shape[2]) @ w).view(x.shape), 1),
    _of(lambda x, w: torch.cat([x, x[:, -1:]], 1) @ w, 1),
    _of(lambda x, w: (x @ w)[:, : (x.shape[1] + 1) // 2], 1),
    _of(lambda x: x[:, ::2]),
    _of(lambda x, w: functional.pad((x @ w)[:, :-1], (0, 0, 1, 0)), 1),
    _of(_causal, 1),
    _of(_positions),
    _of(lambda x, w: x - (x @ w).sum(1, keepdim=True) / x.shape[1], 1),
    _of(lambda x: x * x.shape[1] ** -0.5),
    _of(lambda x, w: (x @ w) * x.shape[1] + x.shape[0], 1),
    _of(_pairs, 1),
    _of(_running_mean),
    _of(_outer, 1),
    _of(lambda x, a, b: (x.mT @ x) @ a @ b / x.shape[1], 2),
    _of(lambda x: x.roll(1, 1) - x.flip(1)),
    _of(lambda x: x - x.mean(0)),
    _of(lambda x, w: x + x.new_full((x.shape[0], 1, x.shape[2]), 0.5) @ w, 1),
    _of(lambda x, w: torch.cat([x, x.flip(0)], 0)[: x.shape[0]] @ w, 1),
    _of(lambda x, w: (x.transpose(0, 1) @ w).transpose(0, 1), 1),
    _of(_looked_up, 1),
    _of(lambda x, a, b: torch.stack([x @ a, x @ b], 1).amax(1), 2),
]
SIZED_HEADS: list[Block] = [
    *HEADS,
    _of(lambda x, w: (x @ w).flatten(1).sum(-1), 1),
    _of(lambda x, w: ((x @ w).relu(), x.shape[1], x.numel()), 1),
    _of(lambda x, w: (x @ w)[torch.arange(x.shape[0]), -1], 1),
    _of(lambda x, w: (x @ w).reshape(-1), 1),
    _of(lambda x, w: (x @ w).sum((0, 1)), 1),
    _of(lambda x, w: (x @ w).amax(1), 1),
]
SIZED_IMAGES: list[Block] = [*IMAGE_BLOCKS, _of(_grid), _of(lambda x: x[..., 1:, 1:] - x[..., :-1, :-1])]
IMAGE_HEADS: list[Block] = [
    _of(lambda x: x.mean((2, 3))),
    _of(lambda x: x.flatten(2).mT),
    _of(lambda x: (x.amax((2, 3)), x.shape[2] * x.shape[3])),
]
