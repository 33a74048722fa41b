"""Rows of attention, recurrences, and of sequences of which little is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.laws.hand_rewrites.row import Row, Weights, differentiable, tensors, weights

HEADS = 4


class EncoderLayer(nn.Module):
    """The linear layers and norms of an encoder layer, and a classifier."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.classify = nn.Linear(width, 2)


def _layer(p: Any, queries: Tensor, x: Tensor) -> Tensor:
    """The layer's output at the positions of ``queries``, a part of ``x``."""
    q, k, v = (y.unflatten(-1, (HEADS, -1)).transpose(1, 2) for y in (p.q(queries), p.k(x), p.v(x)))
    attended = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    y = p.first(queries + p.out(attended))
    out: Tensor = p.second(y + p.narrow(functional.gelu(p.wide(y))))
    return out


def first_position(p: Any, x: Tensor) -> Tensor:
    out: Tensor = p.classify(_layer(p, x, x)[:, 0])
    return out


def first_position_alone(p: Any, x: Tensor) -> Tensor:
    out: Tensor = p.classify(_layer(p, x[:, :1], x)[:, 0])
    return out


def last_logits(p: Any, x: Tensor) -> Tensor:
    return functional.linear(functional.layer_norm(x, x.shape[-1:], p.scale, p.shift), p.head)[:, -1]


def logits_of_last(p: Any, x: Tensor) -> Tensor:
    return functional.linear(functional.layer_norm(x[:, -1], x.shape[-1:], p.scale, p.shift), p.head)


def linear_attention(p: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) * 0.125) @ v


def keys_and_values_first(p: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q @ ((k.transpose(-2, -1) @ v) * 0.125)


def single_head(p: Any, x: Tensor) -> Tensor:
    scores = (x @ p.q) @ (x @ p.k).t() / math.sqrt(x.shape[-1])
    return (torch.softmax(scores, -1) @ (x @ p.v)) @ p.out


def single_head_folded(p: Any, x: Tensor) -> Tensor:
    scores = (x @ (p.q @ p.k.t())) @ x.t() / math.sqrt(x.shape[-1])
    return torch.softmax(scores, -1) @ (x @ (p.v @ p.out))


def _nas_gates(t: list[Tensor]) -> Tensor:
    """The tree of the NAS cell over its eight gates."""
    a = torch.relu(t[0]) + torch.sigmoid(t[3])
    b = torch.sigmoid(t[1]) + torch.tanh(t[2])
    c = torch.sigmoid(t[4]) * torch.tanh(t[5])
    d = torch.sigmoid(t[6]) * torch.relu(t[7])
    e = torch.sigmoid(b) + torch.tanh(c)
    return torch.tanh(torch.tanh(e) * torch.tanh(torch.tanh(a) * torch.tanh(d)))


def nas_rnn(p: Any, x: Tensor) -> Tensor:
    h = x.new_zeros(x.shape[1], x.shape[2])
    for step in x:
        h = _nas_gates([step @ w + h @ u for w, u in zip(p.w, p.u, strict=True)])
    return h


def nas_rnn_hoisted(p: Any, x: Tensor) -> Tensor:
    """The inputs' part of all steps and gates as one product, and one product a step for the state's."""
    inputs = x.flatten(0, 1) @ p.w.transpose(0, 1).flatten(1)
    inputs = inputs.unflatten(0, x.shape[:2])
    h = x.new_zeros(x.shape[1], x.shape[2])
    for step in inputs:
        h = _nas_gates(list((step + h @ p.u.transpose(0, 1).flatten(1)).chunk(8, -1)))
    return h


def _loop(make: Callable[[int, int], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: make(256, 256)


def lstm(p: Any, x: Tensor) -> Tensor:
    h = c = x.new_zeros(x.shape[1], x.shape[2])
    for step in x:
        h, c = p(step, (h, c))
    return h


def lstm_hoisted(p: Any, x: Tensor) -> Tensor:
    inputs = functional.linear(x, p.weight_ih, p.bias_ih)
    h = c = x.new_zeros(x.shape[1], x.shape[2])
    for step in inputs:
        i, f, g, o = (step + functional.linear(h, p.weight_hh, p.bias_hh)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
    return h


def gru(p: Any, x: Tensor) -> Tensor:
    h = x.new_zeros(x.shape[1], x.shape[2])
    for step in x:
        h = p(step, h)
    return h


def gru_hoisted(p: Any, x: Tensor) -> Tensor:
    inputs = functional.linear(x, p.weight_ih, p.bias_ih)
    h = x.new_zeros(x.shape[1], x.shape[2])
    for step in inputs:
        (a, b, c), (d, e, f) = step.chunk(3, -1), functional.linear(h, p.weight_hh, p.bias_hh).chunk(3, -1)
        reset, update = torch.sigmoid(a + d), torch.sigmoid(b + e)
        h = (1 - update) * torch.tanh(c + reset * f) + update * h
    return h


def _buckets(length: int) -> Tensor:
    """Relative positions in 32 buckets, exact up to 8 and logarithmic beyond, on either side."""
    distance = torch.arange(length)[None] - torch.arange(length)[:, None]
    far = 8 + (torch.log(distance.abs().clamp(min=1).float() / 8) / math.log(16) * 8).long()
    bucket = torch.where(distance.abs() < 8, distance.abs(), far.clamp(max=15))
    return bucket + torch.where(distance > 0, 16, 0)


class PositionBias(Weights):
    """A table of biases by bucket, and what it says for ``length`` positions."""

    def __init__(self, length: int) -> None:
        super().__init__(table=(32, HEADS))
        self.register_buffer("bias", functional.embedding(_buckets(length), self.table).permute(2, 0, 1).detach())


def position_bias(p: Any, scores: Tensor) -> Tensor:
    bias = functional.embedding(_buckets(scores.shape[-1]), p.table).permute(2, 0, 1)
    return torch.softmax(scores + bias, -1)


def known_position_bias(p: Any, scores: Tensor) -> Tensor:
    return torch.softmax(scores + p.bias, -1)


SIDE, WINDOW, SHIFT = 28, 7, 3


def _window_mask(x: Tensor) -> Tensor:
    """Which positions of a shifted window come from regions that are no neighbours, as [windows, 49, 49] of 0, -100."""
    regions = x.new_zeros(SIDE, SIDE)
    bounds = ((0, SIDE - WINDOW), (SIDE - WINDOW, SIDE - SHIFT), (SIDE - SHIFT, SIDE))
    for i, rows in enumerate(bounds):
        for j, columns in enumerate(bounds):
            regions[rows[0] : rows[1], columns[0] : columns[1]] = 3 * i + j
    count = SIDE // WINDOW
    windows = regions.view(count, WINDOW, count, WINDOW).permute(0, 2, 1, 3).reshape(-1, WINDOW * WINDOW)
    difference = windows.unsqueeze(1) - windows.unsqueeze(2)
    return torch.zeros_like(difference).masked_fill(difference != 0, -100.0)


class WindowMask(Weights):
    """A factor for each head, and the mask as a buffer."""

    def __init__(self) -> None:
        super().__init__(scale=(HEADS, 1, 1))
        self.register_buffer("mask", _window_mask(torch.zeros(())))


def window_mask(p: Any, scores: Tensor) -> Tensor:
    return torch.softmax(scores * p.scale + _window_mask(scores).unsqueeze(1), -1)


def known_window_mask(p: Any, scores: Tensor) -> Tensor:
    return torch.softmax(scores * p.scale + p.mask.unsqueeze(1), -1)


_QKV = [(1, 4, 512, 64)] * 3
_HEAD = {"scale": (256,), "shift": (256,), "head": (4096, 256)}
_SQUARES = dict.fromkeys(("q", "k", "v", "out"), (256, 256))

ROWS = (
    Row(
        "first_position_of_encoder",
        True,
        lambda: EncoderLayer(128),
        first_position,
        first_position_alone,
        tensors((1, 64, 128)),
        "1.38",
    ),
    Row("last_logits", True, weights(**_HEAD), last_logits, logits_of_last, tensors((1, 64, 256)), "2.07"),
    Row("linear_attention", True, weights(), linear_attention, keys_and_values_first, tensors(*_QKV), "19.3", False),
    Row(
        "linear_attention_trained",
        True,
        weights(),
        linear_attention,
        keys_and_values_first,
        differentiable(*_QKV),
        "14.1",
        False,
        True,
    ),
    Row("single_head", True, weights(**_SQUARES), single_head, single_head_folded, tensors((128, 256)), "1.64"),
    Row(
        "nas_rnn",
        True,
        weights(w=(8, 256, 256), u=(8, 256, 256)),
        nas_rnn,
        nas_rnn_hoisted,
        tensors((3, 1, 256)),
        "1.64",
    ),
    Row("lstm_b1", True, _loop(nn.LSTMCell), lstm, lstm_hoisted, tensors((8, 1, 256)), "2.15"),
    Row("gru_b1", True, _loop(nn.GRUCell), gru, gru_hoisted, tensors((8, 1, 256)), "1.13"),
    Row("lstm_b16_unfrozen", True, _loop(nn.LSTMCell), lstm, lstm_hoisted, tensors((8, 16, 256)), "1.20", False),
    Row("lstm_b16_trained", True, _loop(nn.LSTMCell), lstm, lstm_hoisted, tensors((8, 16, 256)), "1.20", False, True),
    Row(
        "relative_position_bias",
        True,
        lambda: PositionBias(64),
        position_bias,
        known_position_bias,
        tensors((1, HEADS, 64, 64)),
        "1.60",
    ),
    Row("window_mask", True, WindowMask, window_mask, known_window_mask, tensors((16, HEADS, 49, 49)), "3.38"),
)
