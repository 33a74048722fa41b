"""Attention that is written out, for which Inductor has a fused kernel: names are attention-LENGTHxWIDTH-WAY."""

from __future__ import annotations

import re
from functools import partial

import torch
from torch import Tensor, nn

from bench.models.cases import Case

HEADS, LAYERS = 8, 2
_NAME = re.compile(r"attention-(\d+)x(\d+)-(live|frozen)")


class Layer(nn.Module):
    """Self-attention behind a norm, beside its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """The same for x [batch, length, width]."""
        y = self.norm(x)
        q, k, v = (part(y).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        scores = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, -1)
        mixed: Tensor = self.out((scores @ v).transpose(1, 2).flatten(2))
        return x + mixed


def _make(length: int, width: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    return nn.Sequential(*(Layer(width) for _ in range(LAYERS))), (torch.randn(1, length, width),)


def attention_case(name: str) -> Case | None:
    """The case of a name, or None for a name of another kind."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    length, width = int(found[1]), int(found[2])
    return Case(name, 0.98, f"{LAYERS} layers, {length} tokens, {width} wide", partial(_make, length, width))
