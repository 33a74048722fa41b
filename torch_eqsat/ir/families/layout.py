"""Operators that put elements elsewhere: views, parts, concatenations and paddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch_eqsat.ir.known import Interval
from torch_eqsat.ir.operator import (
    Attrs,
    Axes,
    Operator,
    Traffic,
    Types,
    always,
    declare,
    hull,
    no_attributes,
    no_indices,
    nothing_moved,
    of_all,
    of_first,
    require,
    rounded_as_first,
    rounded_as_parts,
    sample,
    streamed,
    tame_as_all,
)
from torch_eqsat.ir.types import TensorType, broadcast_shapes


def _permute(attrs: Attrs, types: Types) -> TensorType:
    dims = attrs["dims"]
    require(sorted(dims) == list(range(types[0].rank)), f"permute {dims} of rank {types[0].rank}")
    return TensorType(tuple(types[0].shape[d] for d in dims), types[0].dtype)


def _view(attrs: Attrs, types: Types) -> TensorType:
    require(math.prod(attrs["shape"]) == types[0].numel, f"view of {types[0].shape} as {attrs['shape']}")
    return TensorType(attrs["shape"], types[0].dtype)


def _expand(attrs: Attrs, types: Types) -> TensorType:
    shape = attrs["shape"]
    require(broadcast_shapes([types[0].shape, shape]) == shape, f"expand of {types[0].shape} to {shape}")
    return TensorType(shape, types[0].dtype)


def _slice(attrs: Attrs, types: Types) -> TensorType:
    dim, start, stop = attrs["dim"], attrs["start"], attrs["stop"]
    shape = list(types[0].shape)
    require(0 <= dim < len(shape) and 0 <= start < stop <= shape[dim], f"slice {start}:{stop} of axis {dim} of {shape}")
    shape[dim] = stop - start
    return TensorType(tuple(shape), types[0].dtype)


def _cat(attrs: Attrs, types: Types) -> TensorType:
    dim, first = attrs["dim"], types[0]
    require(0 <= dim < first.rank, f"concatenation along {dim} of rank {first.rank}")
    for t in types[1:]:
        require(t.dtype == first.dtype and t.rank == first.rank, f"concatenation of {first} and {t}")
        same = t.shape[:dim] == first.shape[:dim] and t.shape[dim + 1 :] == first.shape[dim + 1 :]
        require(same, f"concatenation along {dim} of {first.shape} and {t.shape}")
    total = sum(t.shape[dim] for t in types)
    return TensorType((*first.shape[:dim], total, *first.shape[dim + 1 :]), first.dtype)


def _pad(attrs: Attrs, types: Types) -> TensorType:
    require(len(attrs["pads"]) == types[0].rank, f"pads {attrs['pads']} of rank {types[0].rank}")
    shape = tuple(n + low + high for n, (low, high) in zip(types[0].shape, attrs["pads"], strict=True))
    return TensorType(shape, types[0].dtype)


def along(attrs: Attrs, types: Types) -> TensorType:
    """An operator along axis ``dim`` that keeps the shape."""
    require(0 <= attrs["dim"] < types[0].rank, f"axis {attrs['dim']} of rank {types[0].rank}")
    return types[0]


def _diagonal(_: Attrs, types: Types) -> TensorType:
    """The main diagonals [..., n] of square matrices [..., n, n]."""
    x = types[0]
    require(x.rank >= 2 and x.shape[-1] == x.shape[-2], f"the diagonal of {x.shape}")
    return TensorType(x.shape[:-1], x.dtype)


def named_axis(attrs: Attrs, _: Types, __: int) -> Axes:
    """The axis that the attribute dim names."""
    return frozenset([attrs["dim"]])


def _padded_axes(attrs: Attrs, _: Types, __: int) -> Axes:
    return frozenset(axis for axis, pad in enumerate(attrs["pads"]) if any(pad))


def _with_zero(_: Attrs, operands: Sequence[Interval | None], *__: Any) -> Interval | None:
    return (min(0.0, operands[0][0]), max(0.0, operands[0][1])) if operands[0] else None


def _joined(_: Attrs, types: Types, result: TensorType) -> Traffic:
    return Traffic(result.numel, sum(t.bytes for t in types), parts=len(types) - 1, fused=False)


def _copied(_: Attrs, types: Types, result: TensorType) -> Traffic:
    return Traffic(result.numel, types[0].bytes, fused=False)


def _layout(name: str, infer: Any, traits: str, **own: Any) -> Operator:
    given = {
        "infer": infer, "acts_on": {}, "linear_in": (0,), "exact": always, "by_place": False, "interval": of_first,
        "rounded": rounded_as_first, "tame": tame_as_all, "work": "cheap", "follows_layout": False,
        "traffic": nothing_moved if "view" in traits else streamed, "defaults": no_attributes, "variants": (),
        "samples": (), "looks_up": no_indices,
    }  # fmt: skip
    return declare(name, None if name == "cat" else 1, traits, **given | own)


OPERATORS = [
    _layout(
        "slice",
        _slice,
        "view selection",
        acts_on={0: named_axis},
        follows_layout=True,
        samples=(
            sample(1, 0, 2, "0", 1 / 4, "slice({v}, dim=0, start=1, stop=2)"),
            sample(1, 0, 2, "1", 1 / 3, "slice({v}, dim=1, start=1, stop=3)"),
            sample(1, 0, 4, "0", 1 / 2, "slice({v}, dim=0, start=1, stop=2)"),
            sample(1, 0, 4, "1", 1 / 4, "slice({v}, dim=1, start=1, stop=2)"),
            sample(1, 0, 4, "3", 1 / 2, "slice({v}, dim=3, start=0, stop=3)"),
        ),
    ),
    _layout(
        "flip",
        along,
        "selection",
        acts_on={0: named_axis},
        samples=(
            sample(1, 0, 2, "0", 1, "flip({v}, dim=0)"),
            sample(1, 0, 4, "1", 1, "flip({v}, dim=1)"),
            sample(1, 0, 4, "2", 1, "flip({v}, dim=2)"),
        ),
    ),
    _layout(  # with zeros
        "pad",
        _pad,
        "integers",
        acts_on={0: _padded_axes},
        interval=_with_zero,
        traffic=_copied,
        follows_layout=True,
        samples=(
            sample(1, 0, 2, "0", 5 / 4, "pad({v}, pads=[[1, 0], [0, 0]])"),
            sample(1, 0, 4, "1", 5 / 4, "pad({v}, pads=[[0, 0], [0, 1], [0, 0], [0, 0]])"),
            sample(1, 0, 4, "23", 16 / 9, "pad({v}, pads=[[0, 0], [0, 0], [1, 1], [1, 1]])"),
        ),
    ),
    _layout("view", _view, "view selection", samples=(sample(1, 0, 2, "?", 1, "view({v}, shape=[24])"),)),
    _layout("permute", _permute, "view selection", samples=(sample(1, 0, 3, "?", 1, "permute({v}, dims=[1, 2, 0])"),)),
    _layout("expand", _expand, "view selection", samples=(sample(1, 0, 2, "?", 2, "expand({v}, shape=[2, 4, 6])"),)),
    _layout("diagonal", _diagonal, "view selection", samples=(sample(1, 0, 4, "?", 1 / 6, "diagonal({v})"),)),
    _layout(
        "cat",
        _cat,
        "joins",
        linear_in=(),
        interval=of_all(hull),
        traffic=_joined,
        follows_layout=True,
        rounded=lambda _, operands, *__: rounded_as_parts(operands),
    ),
]
