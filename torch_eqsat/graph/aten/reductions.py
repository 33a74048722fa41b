"""Sums and other reductions: over axes, over windows, and along an axis."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch._inductor.inductor_prims  # registers the pools with offsets  # noqa: F401

from torch_eqsat.graph.emitter import (
    Emitter,
    Lowering,
    Translation,
    Value,
    aten,
    filled,
    prims,
)
from torch_eqsat.graph.whole import FILTER_BANK, filter_bank
from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.ir.types import TensorType


def _from_reduction(kind: str) -> Translation:
    def translate(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
        x = args[0]
        dims = args[1] if len(args) > 1 and args[1] else range(x.rank)
        if kwargs.get("dtype") is not None or x.type.dtype != result.dtype or not x.type.is_floating:
            return None
        if x.rank == 0:  # a number, which may be reduced along its first and its last axis
            return x  # type: ignore[no-any-return]
        dims = [dims] if isinstance(dims, int) else dims
        return t.view(t.reduce(x, kind, [d % x.rank for d in dims]), result.shape)

    return translate


def _from_moments(item: int) -> Translation:
    """The variance (item 0) or the mean (item 1) that var_mean returns."""

    def translate(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
        x, dims = args[0], args[1] if len(args) > 1 and args[1] is not None else range(args[0].rank)
        correction = kwargs.get("correction")
        if x.rank == 0:
            return x if item == 1 and x.type == result else None  # the variance of one number may be NaN
        kind = "mean" if item == 1 else f"var{float(1 if correction is None else correction)}"
        return t.view(t.reduce(x, kind, [d % x.rank for d in dims]), result.shape)

    return translate


def _to_reduction(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    kind, dims = a["kind"], list(a["dims"])
    if kind == "sum":
        return emit.call(aten.sum.dim_IntList, args[0], dims, True)
    if kind == "mean":
        return emit.call(aten.mean.dim, args[0], dims, True)
    if kind in ("amax", "amin"):
        return emit.call(getattr(aten, kind).default, args[0], dims, True)
    correction = float(kind.removeprefix("var"))
    pair = emit.call(aten.var_mean.correction, args[0], dims, correction=correction, keepdim=True)
    return emit.call(operator.getitem, pair, 0)


def _from_average_pool(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle | None:
    x, kernel, stride, padding, ceil_mode, count, divisor = filled(args, (None, None, [], [0, 0], False, True, None))
    kernel, stride, padding = (list(v) * (2 if len(v) == 1 else 1) for v in (kernel, stride or kernel, padding))
    window = {"kernel": kernel, "stride": stride, "padding": padding}
    if ceil_mode or x.rank != 4:
        return None
    return t.apply("avg_pool", (x,), **window, ceil_mode=False, count_include_pad=count, divisor=divisor)


def _to_average_pool(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    window = [list(a[name]) for name in ("kernel", "stride", "padding")]
    return emit.call(aten.avg_pool2d.default, args[0], *window, a["ceil_mode"], a["count_include_pad"], a["divisor"])


def _from_max_pool(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    x, kernel, stride, padding, dilation, ceil_mode = args
    if ceil_mode or x.rank != 4 or any(d != 1 for d in dilation):
        return None
    return t.apply("max_pool", (x,), kernel=kernel, stride=stride, padding=padding)


def _to_max_pool(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    window = [list(a[name]) for name in ("kernel", "stride", "padding")]
    return emit.call(operator.getitem, emit.call(aten.max_pool2d_with_indices.default, args[0], *window), 0)


def _from_cumsum(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    x, dim = args
    return t.apply("cumsum", (x,), dim=dim % x.rank) if not kwargs and x.type == result and x.rank else None


def _to_filter_bank(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    # Inductor would compute what is read here, a padded image as a rule, again in each filter and each tap of it.
    emit.store(args[0])
    places = (a["dim"], a["into"], a["step"], a["dilation"])
    bank = (*places, [c for row in a["coefficients"] for c in row], len(a["coefficients"]))
    return emit.call(FILTER_BANK, args[0], *bank) if emit.keeps_whole else filter_bank(emit.call, args[0], *bank)


def _from_topk(item: int) -> Translation:
    def translate(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
        x, k, dim, largest, ordered = filled(args, (None, None, -1, True, True))
        if x.rank == 0 or kwargs or type(k) is not int:
            return None
        return t.apply("topk", (x,), k=k, dim=dim % x.rank, largest=largest, sorted=ordered, item=item)

    return translate


def _to_topk(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    pair = emit.call(aten.topk.default, args[0], a["k"], a["dim"], a["largest"], a["sorted"])
    return emit.call(operator.getitem, pair, a["item"])


FROM_ATEN: dict[Any, Translation] = {
    aten.sum.dim_IntList: _from_reduction("sum"),
    aten.sum.default: _from_reduction("sum"),
    aten.mean.dim: _from_reduction("mean"),
    aten.mean.default: _from_reduction("mean"),
    aten.amax.default: _from_reduction("amax"),
    aten.amin.default: _from_reduction("amin"),
    aten.avg_pool2d.default: _from_average_pool,
    aten.cumsum.default: _from_cumsum,
}
FROM_ITEMS: dict[tuple[Any, int], Translation] = {
    (aten.var_mean.correction, 0): _from_moments(0),
    (aten.var_mean.correction, 1): _from_moments(1),
    (aten.topk.default, 0): _from_topk(0),
    (aten.topk.default, 1): _from_topk(1),
    (prims._low_memory_max_pool_with_offsets.default, 0): _from_max_pool,
}
TO_ATEN: dict[str, Lowering] = {
    "reduce": _to_reduction,
    "avg_pool": _to_average_pool,
    "max_pool": _to_max_pool,
    "cumsum": lambda emit, a, args: emit.call(aten.cumsum.default, args[0], a["dim"]),
    "filter_bank": _to_filter_bank,
    "topk": _to_topk,
}
