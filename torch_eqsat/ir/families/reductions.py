"""Sums and other reductions: over axes, over windows, and along an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch_eqsat.ir.families.layout import along, named_axis
from torch_eqsat.ir.known import Interval, Known
from torch_eqsat.ir.operator import (
    Attrs,
    Operator,
    Traffic,
    Types,
    always,
    declare,
    never,
    no_attributes,
    no_indices,
    not_known,
    require,
    rounded_as_any,
    sample,
    streamed,
    tame_as_all,
)
from torch_eqsat.ir.types import TensorType


def _reduce(attrs: Attrs, types: Types) -> TensorType:
    dims, x = attrs["dims"], types[0]
    require(x.is_floating, f"a reduction of {x.dtype}: aten widens integers")
    require(all(0 <= d < x.rank for d in dims), f"reduction over {dims} of rank {x.rank}")
    require(len(set(dims)) == len(dims), f"reduction over {dims}, an axis twice")
    return TensorType(tuple(1 if i in dims else n for i, n in enumerate(x.shape)), x.dtype)


def _pool(attrs: Attrs, types: Types) -> TensorType:
    x = types[0]
    require(x.rank == 4 and not attrs.get("ceil_mode"), "pooling takes [N, C, H, W], without ceil mode")
    require(x.is_floating, f"pooling of {x.dtype}")
    require(min(attrs["stride"]) > 0 and min(attrs["kernel"]) > 0, f"pooling by {attrs}")
    sizes = [
        (size + 2 * padding - kernel) // stride + 1
        for size, kernel, stride, padding in zip(
            x.shape[2:], attrs["kernel"], attrs["stride"], attrs["padding"], strict=True
        )
    ]
    require(min(sizes) > 0, f"pooling window {attrs['kernel']} is larger than {x.shape}")
    return TensorType((*x.shape[:2], *sizes), x.dtype)


LEAST_CHANNELS = 16
"""Of an image whose banks kernels of our own compute (`torch_eqsat/kernels`): as many as the widest vectors hold."""


def _filter_bank(attrs: Attrs, types: Types) -> TensorType:
    """Filter i is Σₖ coefficients[i][k] · x[step · t + dilation · k] at each place t along ``dim``; the filters lie
    side by side along ``into``."""
    x, dim, into, step, dilation = types[0], *(attrs[name] for name in ("dim", "into", "step", "dilation"))
    taps = {len(row) for row in attrs["coefficients"]}
    require(x.is_floating and len(taps) == 1, f"filters of {x.dtype} with {sorted(taps)} taps")
    require(0 <= dim < x.rank and 0 <= into < x.rank and min(step, dilation) > 0, f"filters by {attrs}")
    require(all(map(any, attrs["coefficients"])), f"a filter of zeros alone: {attrs['coefficients']}")
    shape = list(x.shape)
    shape[dim] = (x.shape[dim] - dilation * (taps.pop() - 1) - 1) // step + 1
    require(shape[dim] > 0, f"filters {attrs['coefficients']} are longer than axis {dim} of {x.shape}")
    shape[into] *= len(attrs["coefficients"])
    return TensorType(tuple(shape), x.dtype)


def _topk(attrs: Attrs, types: Types) -> TensorType:
    """The ``k`` largest (or smallest) elements along ``dim``: item 0 of the pair, or item 1, their indices."""
    x, dim = types[0], attrs["dim"]
    require(0 <= dim < x.rank and 0 < attrs["k"] <= x.shape[dim], f"{attrs['k']} elements of axis {dim} of {x.shape}")
    require(attrs["item"] in (0, 1), f"item {attrs['item']} of a pair")
    return TensorType((*x.shape[:dim], attrs["k"], *x.shape[dim + 1 :]), "int64" if attrs["item"] else x.dtype)


def _of_chosen(
    attrs: Attrs, known: Sequence[Interval | None], types: Sequence[TensorType | None], _: TensorType
) -> Interval | None:
    source = types[0]
    if attrs["item"] == 0 or source is None:
        return known[0]
    return 0.0, source.shape[attrs["dim"]] - 1.0


def _reduced(
    attrs: Attrs, known: Sequence[Interval | None], types: Sequence[TensorType | None], result: TensorType
) -> Interval | None:
    kind, source = attrs["kind"], types[0]
    if known[0] is None or source is None:
        return None
    low, high = known[0]
    count = source.numel // result.numel
    if kind == "sum":
        return count * low, count * high
    return (low, high) if kind in ("mean", "amax", "amin") else None


def _rounded(attrs: Attrs, operands: Sequence[Known], types: Sequence[TensorType | None], result: TensorType) -> bool:
    summed = attrs["kind"] not in ("amax", "amin") and types[0] is not None and types[0].numel > result.numel
    return operands[0].rounded or summed


def _over_operand(_: Attrs, types: Types, result: TensorType) -> Traffic:
    return Traffic(types[0].numel, types[0].bytes)


def _over_windows(attrs: Attrs, types: Types, result: TensorType) -> Traffic:
    return Traffic(result.numel * math.prod(attrs["kernel"]), types[0].bytes)


def _over_taps(attrs: Attrs, types: Types, result: TensorType) -> Traffic:
    x, filters = types[0], attrs["coefficients"]
    work = sum(c != 0 for row in filters for c in row) / len(filters)
    tiled = x.dtype == "float32" and x.rank in (4, 5) and min(x.shape[1], result.shape[1]) >= LEAST_CHANNELS
    return Traffic(result.numel, x.bytes, work, parts=len(filters) - 1, fused=False, tiled=tiled)


def _reduction(name: str, infer: Any, traits: str, **own: Any) -> Operator:
    given = {
        "infer": infer, "acts_on": {}, "linear_in": (0,), "exact": always, "by_place": False, "interval": not_known,
        "rounded": always, "tame": tame_as_all, "work": "cheap", "follows_layout": True, "traffic": _over_windows,
        "defaults": no_attributes, "variants": (), "samples": (), "looks_up": no_indices,
    }  # fmt: skip
    return declare(name, 1, traits, **given | own)


OPERATORS = [
    _reduction(
        "cumsum",
        along,
        "integers",
        acts_on={0: named_axis},
        traffic=streamed,
        follows_layout=False,
        samples=(
            sample(1, 0, 2, "0", 1, "cumsum({v}, dim=0)"),
            sample(1, 0, 4, "1", 1, "cumsum({v}, dim=1)"),
            sample(1, 0, 4, "2", 1, "cumsum({v}, dim=2)"),
        ),
    ),
    _reduction(  # keeps the reduced axes with size 1; the attribute kind names it
        "reduce",
        _reduce,
        "reduction",
        acts_on={0: lambda attrs, _, __: frozenset(attrs["dims"])},
        interval=_reduced,
        rounded=_rounded,
        work="reduction",
        traffic=_over_operand,
        follows_layout=False,
        exact=lambda attrs: attrs["kind"] in ("sum", "amax", "amin"),
        samples=(
            sample(1, 0, 2, "0", 1 / 4, "reduce({v}, kind='sum', dims=[0])"),
            sample(1, 0, 2, "1", 1 / 6, "reduce({v}, kind='mean', dims=[1])"),
            sample(1, 0, 4, "23", 1 / 36, "reduce({v}, kind='mean', dims=[2, 3])"),
            sample(1, 0, 4, "1", 1 / 4, "reduce({v}, kind='sum', dims=[1])"),
        ),
    ),
    _reduction(
        "avg_pool",
        _pool,
        "reduction",
        acts_on={0: lambda *_: frozenset([2, 3])},
        work="pooling",
        exact=never,
        defaults=lambda _: {"padding": (0, 0), "ceil_mode": False, "count_include_pad": True, "divisor": None},
        variants=(("count_include_pad", "False"), ("divisor", "3"), ("padding", "[1, 1]")),
        samples=(
            sample(1, 0, 4, "23", 1 / 4, "avg_pool({v}, kernel=[2, 2], stride=[2, 2])"),
            sample(1, 0, 4, "23", 1, "avg_pool({v}, kernel=[3, 3], stride=[1, 1], padding=[1, 1])"),
        ),
    ),
    _reduction(  # padded with −∞
        "max_pool",
        _pool,
        "reduction",
        acts_on={0: lambda *_: frozenset([2, 3])},
        linear_in=(),
        work="pooling",
        rounded=rounded_as_any,
        defaults=lambda _: {"padding": (0, 0)},
        variants=(("padding", "[1, 1]"),),
        samples=(sample(1, 0, 4, "23", 1 / 4, "max_pool({v}, kernel=[2, 2], stride=[2, 2])"),),
    ),
    # Linear, but not stated as such: what it is linear in is many small sums, of which laws would make many more.
    _reduction("filter_bank", _filter_bank, "", linear_in=(), traffic=_over_taps),
    # A call of ATen, which Inductor does not fuse.
    _reduction(
        "topk",
        _topk,
        "",
        acts_on={0: named_axis},
        linear_in=(),
        interval=_of_chosen,
        rounded=lambda attrs, operands, *_: attrs["item"] == 0 and operands[0].rounded,
        traffic=lambda _, types, __: Traffic(types[0].numel, types[0].bytes, calls=1, fused=False),
        follows_layout=False,
        defaults=lambda _: {"largest": True, "sorted": True, "item": 0},
        variants=(("largest", "False"), ("item", "1")),
        samples=(
            sample(1, 0, 2, "1", 1 / 3, "topk({v}, k=2, dim=1)"),
            sample(1, 0, 4, "2", 1 / 2, "topk({v}, k=3, dim=2, item=1)"),
        ),
    ),
]
