"""Products: of matrices, convolutions and attention, whose kernels are measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_eqsat.ir.known import Interval
from torch_eqsat.ir.operator import (
    Attrs,
    Axes,
    Operator,
    Types,
    always,
    declare,
    never,
    no_attributes,
    no_indices,
    not_known,
    nothing_moved,
    require,
    sample,
)
from torch_eqsat.ir.types import TensorType


def _matmul(_: Attrs, types: Types) -> TensorType:
    """[m, k] by [k, n], a batch [b, m, k] by [b, k, n], or rows [..., m, k] of any rank by one matrix [k, n]."""
    a, b = types
    require(a.dtype == b.dtype and a.is_floating, f"matmul of {a.dtype} and {b.dtype}")
    require(b.rank == 2 <= a.rank or a.rank == b.rank == 3, f"matmul of ranks {a.rank} and {b.rank}")
    batched = b.rank == 3
    require(not batched or a.shape[0] == b.shape[0], f"matmul of {a.shape} and {b.shape}")
    require(a.shape[-1] == b.shape[-2], f"matmul of {a.shape} and {b.shape}")
    return TensorType((*a.shape[:-1], b.shape[-1]), a.dtype)


def _conv(attrs: Attrs, types: Types) -> TensorType:
    x, w = types
    spatial = len(attrs["stride"])
    require(x.dtype == w.dtype, f"convolution of {x.dtype} with {w.dtype}")
    require(x.rank == w.rank == spatial + 2, f"convolution of ranks {x.rank}, {w.rank} over {spatial} axes")
    groups = attrs["groups"]
    require(groups > 0 and min((*attrs["stride"], *attrs["dilation"])) > 0, f"convolution by {attrs}")
    require(all(len(attrs[name]) == spatial for name in ("padding", "dilation")), f"padding and dilation of {attrs}")
    require(x.shape[1] == w.shape[1] * groups and w.shape[0] % groups == 0, f"channels of {x.shape} and {w.shape}")
    sizes = [
        (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, padding, dilation in zip(
            x.shape[2:], w.shape[2:], attrs["stride"], attrs["padding"], attrs["dilation"], strict=True
        )
    ]
    require(min(sizes) > 0, f"kernel {w.shape} is larger than its padded input {x.shape}")
    return TensorType((x.shape[0], w.shape[0], *sizes), x.dtype)


def _conv_transpose(attrs: Attrs, types: Types) -> TensorType:
    """[N, C, *spatial] with [C, O/groups, *window], without dilation or output padding."""
    x, w = types
    spatial, groups = len(attrs["stride"]), attrs["groups"]
    require(x.dtype == w.dtype, f"transposed convolution of {x.dtype} with {w.dtype}")
    require(x.rank == w.rank == spatial + 2 == len(attrs["padding"]) + 2, f"ranks {x.rank}, {w.rank} and {attrs}")
    require(groups > 0 and min(attrs["stride"]) > 0, f"transposed convolution by {attrs}")
    require(x.shape[1] == w.shape[0] and w.shape[0] % groups == 0, f"channels of {x.shape} and {w.shape}")
    windows = zip(x.shape[2:], w.shape[2:], attrs["stride"], attrs["padding"], strict=True)
    sizes = [(size - 1) * stride - 2 * padding + kernel for size, kernel, stride, padding in windows]
    require(min(sizes) > 0, f"nothing is left of {x.shape} with {w.shape} by {attrs}")
    return TensorType((x.shape[0], w.shape[1] * groups, *sizes), x.dtype)


def _sdpa(attrs: Attrs, types: Types) -> TensorType:
    q, k, v = types[:3]
    require(q.rank == k.rank == v.rank == 4, "attention takes [batch, heads, length, width]")
    require(q.dtype == k.dtype == v.dtype, f"attention over {q.dtype}, {k.dtype}, {v.dtype}")
    require(q.shape[:2] == k.shape[:2] == v.shape[:2], f"attention over {q.shape}, {k.shape}, {v.shape}")
    # The fused kernels want values as wide as keys.
    require(q.shape[3] == k.shape[3] and k.shape[2:] == v.shape[2:], f"attention over {q.shape}, {k.shape}, {v.shape}")
    return TensorType((*q.shape[:3], v.shape[3]), q.dtype)


def _summed_axes(_: Attrs, types: Types, position: int) -> Axes | None:
    """The axis that is summed over, and the batch where each of its matrices meets another. The columns of one matrix
    that meets rows of higher rank are at another place in the result."""
    a, b = types
    if position == 1 and a.rank != b.rank:
        return None
    batch = frozenset(range(b.rank - 2))
    return batch | {a.rank - 1 if position == 0 else b.rank - 2}


def _channels_and_windows(attrs: Attrs, types: Types, _: int) -> Axes:
    """The channels, and the positions along which a window is wider than one or the output is shifted."""
    windows = zip(types[1].shape[2:], attrs["stride"], attrs["padding"], strict=True)
    return frozenset({1, *(axis for axis, window in enumerate(windows, 2) if window != (1, 1, 0))})


def _of_sums(_: Attrs, known: Sequence[Interval | None], types: Any, __: Any) -> Interval | None:
    a, b = known
    if a is None or b is None:
        return None
    products = [x * y for x in a for y in b]
    return types[0].shape[-1] * min(products), types[0].shape[-1] * max(products)


def _plain(types: Types) -> Attrs:
    n = types[0].rank - 2
    return {"stride": (1,) * n, "padding": (0,) * n, "dilation": (1,) * n, "groups": 1}


def _plain_transposed(types: Types) -> Attrs:
    return {name: value for name, value in _plain(types).items() if name != "dilation"}


def _product(name: str, arity: int | None, infer: Any, **own: Any) -> Operator:
    given = {
        "infer": infer, "exact": always, "by_place": False, "interval": not_known, "rounded": always, "tame": always,
        "work": "cheap", "traffic": nothing_moved, "follows_layout": False, "variants": (), "looks_up": no_indices,
    }  # fmt: skip
    return declare(name, arity, "heavy", **given | own)


OPERATORS = [
    _product(
        "matmul",
        2,
        _matmul,
        interval=_of_sums,
        linear_in=(0, 1),
        defaults=no_attributes,
        acts_on={0: _summed_axes, 1: _summed_axes},
        samples=(
            sample(2, 0, 2, "1", 1 / 3, "matmul({v}, {v}w)", "{v}w := [{v}.shape[1], 2]"),
            sample(2, 0, 2, "1", 3, "matmul({v}, {v}w)", "{v}w := [{v}.shape[1], 18]"),
            sample(2, 0, 4, "3", 1 / 3, "matmul({v}, {v}w)", "{v}w := [{v}.shape[3], 2]"),
            sample(2, 1, 2, "0", 1 / 2, "matmul({v}w, {v})", "{v}w := [2, {v}.shape[0]]"),
            sample(2, 1, 2, "0", 3, "matmul({v}w, {v})", "{v}w := [12, {v}.shape[0]]"),
        ),
    ),
    _product(
        "conv",
        2,
        _conv,
        linear_in=(0, 1),
        defaults=_plain,
        variants=(("groups", "2"),),
        acts_on={0: _channels_and_windows},
        samples=(
            sample(2, 0, 4, "1", 1 / 2, "conv({v}, {v}w)", "{v}w := [2, {v}.shape[1], 1, 1]"),
            sample(2, 0, 4, "1", 2, "conv({v}, {v}w)", "{v}w := [8, {v}.shape[1], 1, 1]"),
            sample(2, 0, 4, "12", 2, "conv({v}, {v}w, padding=[1, 0])", "{v}w := [8, {v}.shape[1], 3, 1]"),
            sample(2, 1, 4, "?", 1, "conv({v}x, {v})", "{v}x := [1, {v}.shape[1], 8, 8]"),
        ),
    ),
    _product(
        "conv_transpose",
        2,
        _conv_transpose,
        linear_in=(0, 1),
        defaults=_plain_transposed,
        acts_on={0: _channels_and_windows},
        samples=(
            sample(2, 0, 4, "123", 8, "conv_transpose({v}, {v}w, stride=[2, 2])", "{v}w := [{v}.shape[1], 8, 2, 2]"),
            sample(2, 0, 4, "1", 1 / 2, "conv_transpose({v}, {v}w)", "{v}w := [{v}.shape[1], 2, 1, 1]"),
            sample(2, 1, 4, "?", 1, "conv_transpose({v}x, {v})", "{v}x := [1, {v}.shape[0], 3, 3]"),
        ),
    ),
    _product(
        "sdpa",
        None,
        _sdpa,
        linear_in=(2,),
        exact=never,
        acts_on={},
        defaults=lambda _: {"scale": 0.5, "causal": False},
        variants=(("causal", "True"), ("scale", "1.0")),
        samples=(sample(3, 2, 4, "?", 1, "sdpa({v}q, {v}k, {v})", "{v}q := [2, 4, 5, 6]", "{v}k := [2, 4, 6, 6]"),),
    ),
]
