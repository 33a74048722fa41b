"""Rows of convolutions: branches that are one, channels mixed before or after positions, phases of upsampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.laws.hand_rewrites.row import Row, tensors, weights


class Branches(nn.Module):
    """``count`` kxk convolutions with batch norms, a 1x1 one, and a batch norm of the input, to be added."""

    def __init__(self, channels: int, count: int, groups: int = 1) -> None:
        super().__init__()

        def branch(kernel: int) -> nn.Sequential:
            convolution = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=groups, bias=False)
            return nn.Sequential(convolution, nn.BatchNorm2d(channels))

        self.wide = nn.ModuleList(branch(3) for _ in range(count))
        self.point = branch(1)
        self.skip = nn.BatchNorm2d(channels)
        self.groups = groups
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm2d):
                _scatter(norm)


def _scatter(norm: nn.BatchNorm2d) -> None:
    """Random statistics, scales and shifts: with those it is born with a wrong fold would pass."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    nn.init.normal_(norm.running_mean, std=0.1)
    nn.init.uniform_(norm.running_var, 0.5, 1.5)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias, std=0.1)


def branches(p: Any, x: Tensor) -> Tensor:
    total = p.skip(x) + p.point(x)
    for branch in p.wide:
        total = total + branch(x)
    return torch.relu(total)


def one_convolution(p: Any, x: Tensor) -> Tensor:
    """The branches as one 3x3 kernel and bias."""
    channels, groups = p.skip.num_features, p.groups
    eye = torch.eye(channels // groups, dtype=x.dtype).repeat(groups, 1)[:, :, None, None]
    parts = [(functional.pad(eye, (1, 1, 1, 1)), p.skip)]
    parts.append((functional.pad(p.point[0].weight, (1, 1, 1, 1)), p.point[1]))
    parts += [(branch[0].weight, branch[1]) for branch in p.wide]
    kernel: Any = 0.0
    bias: Any = 0.0
    for weight, norm in parts:
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        kernel = kernel + weight * scale[:, None, None, None]
        bias = bias + norm.bias - norm.running_mean * scale
    return torch.relu(functional.conv2d(x, kernel, bias, padding=1, groups=groups))


def _branches(name: str, channels: int, size: int, count: int, groups: int, note: str) -> Row:
    shape = (1, channels, size, size)
    return Row(name, True, lambda: Branches(channels, count, groups), branches, one_convolution, tensors(shape), note)


def two_pointwise(p: Any, x: Tensor) -> Tensor:
    return functional.conv2d(functional.conv2d(x, p.a, p.a_bias), p.b, p.b_bias)


def one_pointwise(p: Any, x: Tensor) -> Tensor:
    a, b = p.a.flatten(1), p.b.flatten(1)
    return functional.conv2d(x, (b @ a)[:, :, None, None], b @ p.a_bias + p.b_bias)


def pointwise_sum(p: Any, a: Tensor, b: Tensor) -> Tensor:
    return functional.conv2d(a, p.w) + functional.conv2d(b, p.u)


def pointwise_of_cat(p: Any, a: Tensor, b: Tensor) -> Tensor:
    return functional.conv2d(torch.cat([a, b], 1), torch.cat([p.w, p.u], 1))


class Transition(nn.Module):
    """A batch norm and a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.convolution = nn.Conv2d(channels, channels // 2, 1, bias=False)
        _scatter(self.norm)


def transition(p: Any, x: Tensor) -> Tensor:
    return functional.avg_pool2d(p.convolution(torch.relu(p.norm(x))), 2)


def pool_first(p: Any, x: Tensor) -> Tensor:
    return p.convolution(functional.avg_pool2d(torch.relu(p.norm(x)), 2))


def _transition(name: str, note: str, frozen: bool) -> Row:
    return Row(name, True, lambda: Transition(256), transition, pool_first, tensors((1, 256, 28, 28)), note, frozen)


def _upsample(mode: str) -> Callable[[Tensor], Tensor]:
    return lambda x: functional.interpolate(x, scale_factor=2.0, mode=mode)


def _pointwise_and_upsample(mode: str, note: str) -> Row:
    upsample = _upsample(mode)

    def after(p: Any, x: Tensor) -> Tensor:
        return functional.conv2d(upsample(x), p.w)

    def before(p: Any, x: Tensor) -> Tensor:
        return upsample(functional.conv2d(x, p.w))

    made = weights(w=(128, 256, 1, 1))
    return Row(f"pointwise_of_{mode}", True, made, after, before, tensors((1, 256, 32, 32)), note)


def upsampled_convolution(p: Any, x: Tensor) -> Tensor:
    return functional.conv2d(_upsample("nearest")(x), p.w, p.bias, padding=1)


def phases(p: Any, x: Tensor) -> Tensor:
    """Each output of an even or odd row and column sees 2x2 inputs: four 2x2 convolutions, interleaved."""
    n, _, height, width = x.shape
    rows = [(p.w[:, :, :1], p.w[:, :, 1:2] + p.w[:, :, 2:]), (p.w[:, :, :1] + p.w[:, :, 1:2], p.w[:, :, 2:])]
    parts = []
    for i, pair in enumerate(rows):
        tall = torch.cat(pair, 2)
        columns = [
            (tall[..., :1], tall[..., 1:2] + tall[..., 2:]),
            (tall[..., :1] + tall[..., 1:2], tall[..., 2:]),
        ]
        for j, kernel in enumerate(columns):
            padded = functional.pad(x, (1 - j, j, 1 - i, i))
            parts.append(functional.conv2d(padded, torch.cat(kernel, 3), p.bias))
    grid = torch.stack(parts, 2).view(n, -1, 2, 2, height, width)
    return grid.permute(0, 1, 4, 2, 5, 3).reshape(n, -1, 2 * height, 2 * width)


def fire(p: Any, x: Tensor) -> Tensor:
    return torch.relu(torch.cat([functional.conv2d(x, p.point), functional.conv2d(x, p.wide, padding=1)], 1))


def fire_enlarged(p: Any, x: Tensor) -> Tensor:
    kernel = torch.cat([functional.pad(p.point, (1, 1, 1, 1)), p.wide])
    return torch.relu(functional.conv2d(x, kernel, padding=1))


def grouped(p: Any, x: Tensor) -> Tensor:
    return torch.relu(functional.conv2d(x, p.w, padding=1, groups=32))


def dense(p: Any, x: Tensor) -> Tensor:
    group = torch.arange(128) // 4
    kernel = torch.where((group[:, None] == group)[..., None, None], p.w.repeat(1, 32, 1, 1), 0.0)
    return torch.relu(functional.conv2d(x, kernel, padding=1))


def pooled(p: Any, x: Tensor) -> Tensor:
    return functional.conv2d(x, p.w, p.bias).mean((2, 3))


def pooled_first(p: Any, x: Tensor) -> Tensor:
    return functional.linear(x.mean((2, 3)), p.w.flatten(1), p.bias)


ROWS = (
    _branches("repvgg_c48", 48, 56, 1, 1, "1.10"),
    _branches("repvgg_c192", 192, 14, 1, 1, "1.21"),
    _branches("mobileone_dense", 64, 28, 4, 1, "4.1 for the model"),
    _branches("mobileone_depthwise", 64, 28, 4, 64, "4.1 for the model"),
    Row(
        "consecutive_pointwise",
        True,
        weights(a=(256, 128, 1, 1), a_bias=(256,), b=(128, 256, 1, 1), b_bias=(128,)),
        two_pointwise,
        one_pointwise,
        tensors((1, 128, 28, 28)),
        "2.63",
    ),
    Row(
        "sum_of_pointwise",
        None,
        weights(w=(256, 256, 1, 1), u=(256, 256, 1, 1)),
        pointwise_sum,
        pointwise_of_cat,
        tensors(*[(1, 256, 28, 28)] * 2),
        "1.08 with AVX2, 0.96 with AVX-512",
    ),
    _transition("densenet_transition", "1.95", True),
    _transition("densenet_transition_unfrozen", "1.79", False),
    _pointwise_and_upsample("nearest", "3.69"),
    _pointwise_and_upsample("bilinear", "2.65"),
    Row(
        "nearest_and_3x3",
        True,
        weights(w=(64, 64, 3, 3), bias=(64,)),
        upsampled_convolution,
        phases,
        tensors((1, 64, 32, 32)),
        "1.74",
    ),
    Row(
        "pool_of_pointwise",
        True,
        weights(w=(1000, 512, 1, 1), bias=(1000,)),
        pooled,
        pooled_first,
        tensors((1, 512, 14, 14)),
        "20.9",
    ),
    Row(
        "fire_enlarged",
        False,
        weights(point=(64, 16, 1, 1), wide=(64, 16, 3, 3)),
        fire,
        fire_enlarged,
        tensors((1, 16, 55, 55)),
        "0.82",
    ),
    Row("resnext_dense", False, weights(w=(128, 4, 3, 3)), grouped, dense, tensors((1, 128, 56, 56)), "0.26"),
)
