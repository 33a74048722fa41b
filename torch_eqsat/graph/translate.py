"""What ATen operators mean in the tensor language: one function an operator, found by its overload.

A translation returns None when the call is outside of what the language says exactly (another dtype, a transposed
convolution, a ceil mode); the operator is opaque then, and nothing else is lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch_eqsat.graph.lowering import FUNCTIONS
from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.ir.types import TensorType

aten = torch.ops.aten
prims = torch.ops.prims
Translation = Callable[[Builder, Sequence[Any], dict[str, Any], TensorType], Handle | None]


def filled(args: Sequence[Any], defaults: Sequence[Any]) -> list[Any]:
    """``args`` and, where they end, ``defaults``."""
    return [*args, *defaults[len(args) :]]


def _arithmetic(combine: Callable[[Builder, Handle, Handle], Handle]) -> Translation:
    def translate(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
        if kwargs:  # alpha, rounding_mode
            return None
        tensors = [a for a in args if isinstance(a, Handle)]
        if not tensors or not all(a.type.is_floating for a in tensors) or len({a.type.dtype for a in tensors}) != 1:
            return None
        if not all(isinstance(a, Handle) or type(a) in (int, float) for a in args):
            return None
        dtype = tensors[0].type.dtype
        a, b = (a if isinstance(a, Handle) else t.scalar(float(a), dtype) for a in args)
        return combine(t, a, b)

    return translate


def _divide(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    x, d = args
    if kwargs or not isinstance(x, Handle) or not x.type.is_floating or (isinstance(d, int | float) and d == 0):
        return None
    if isinstance(d, Handle):
        return t.apply("div", args)
    normal = torch.finfo(getattr(torch, x.type.dtype))
    if not normal.tiny <= abs(1.0 / d) <= normal.max:  # 0 / 1e-40 is 0, 0 · 1e40 is NaN where that is infinite
        return None
    return t.mul(x, t.scalar(1.0 / d, x.type.dtype))


def _function(name: str) -> Translation:
    """The call is the operator ``name`` of the language over the same operands, all of them tensors."""

    def translate(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
        if kwargs or not all(isinstance(a, Handle) for a in args):
            return None
        return t.apply(name, args)

    return translate


def _power(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    x, exponent = args
    return t.mul(x, x) if exponent == 2 and x.type.is_floating else None


def _clamp(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    x, low, high = filled(args, (None, None, None))
    if kwargs or not x.type.is_floating or not all(b is None or type(b) in (int, float) for b in (low, high)):
        return None
    if any(b != b for b in (low, high)):  # NaN bounds make everything NaN
        return None
    return t.apply("clamp", (x,), low=low, high=high)


def _clamp_max(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    return _clamp(t, (args[0], None, args[1]), kwargs, result)


def _convert(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle | None:
    return args[0] if args[0].type == result else t.apply("convert", args[:1], dtype=result.dtype)


def _cumsum(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    x, dim = args
    return t.apply("cumsum", (x,), dim=dim % x.rank) if not kwargs and x.type == result and x.rank else None


def _flip(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    x, dims = args
    for dim in dims:
        x = t.apply("flip", (x,), dim=dim % x.rank)
    return x  # type: ignore[no-any-return]


def _diagonal(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    x, offset, first, second = filled(args, (None, 0, 0, 1))
    if kwargs or offset != 0 or (first % x.rank, second % x.rank) != (x.rank - 2, x.rank - 1):
        return None
    return t.apply("diagonal", (x,))


def _negate(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle | None:
    return t.mul(args[0], t.scalar(-1.0, args[0].type.dtype)) if args[0].type.is_floating else None


def _matmul(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    return t.matmul(*args) if not kwargs else None


def _addmm(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    """alpha · (A B) + beta · C"""
    addend, a, b = args
    beta, alpha = kwargs.get("beta", 1), kwargs.get("alpha", 1)
    if not all(type(factor) in (int, float) and math.isfinite(factor) for factor in (alpha, beta)) or alpha == 0:
        return None

    def scaled(x: Handle, factor: float) -> Handle:
        return x if factor == 1 else t.mul(x, t.scalar(float(factor), x.type.dtype))

    product = scaled(t.matmul(a, b), alpha)
    return t.add(product, scaled(addend, beta)) if beta != 0 else product  # the kernel does not read C then


def _convolution(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    x, w, bias, stride, padding, dilation, transposed, output_padding, groups = args
    n = x.rank - 2
    if any(output_padding) or not len(stride) == len(padding) == len(dilation) == n:
        return None
    if transposed and any(d != 1 for d in dilation):
        return None
    shared = {"stride": stride, "padding": padding, "groups": groups}
    y = (
        t.apply("conv_transpose", (x, w), **shared)
        if transposed
        else t.apply("conv", (x, w), **shared, dilation=dilation)
    )
    return y if bias is None else t.add(y, t.view(bias, (bias.numel, *(1,) * n)))


def _permute(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle:
    return t.permute(args[0], [d % args[0].rank for d in args[1]])


def _view_as_result(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle:
    return t.view(args[0], result.shape)


def _expand(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle:
    return t.expand(args[0], result.shape)


def _bounds(size: int, start: int | None, stop: int | None) -> tuple[int, int]:
    first, last, _ = slice(start, stop).indices(size)
    return first, last


def _slice(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle | None:
    x, dim, start, stop, step = filled(args, (None, 0, None, None, 1))
    if step != 1 or not all(type(n) is int or n is None for n in (start, stop)):
        return None
    dim %= x.rank
    return t.slice(x, dim, *_bounds(x.shape[dim], start, stop))


def _select(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    x, dim, index = args
    if type(index) is not int:
        return None
    dim %= x.rank
    index %= x.shape[dim]
    return t.view(t.slice(x, dim, index, index + 1), result.shape)


def _cat(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle | None:
    parts, dim = args[0], args[1] if len(args) > 1 else 0
    if any(not isinstance(p, Handle) or p.rank == 0 or p.shape == (0,) for p in parts):
        return None
    return t.cat(parts, dim % parts[0].rank)


def _pad(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle | None:
    x, flat, value = (*args, 0)[:3]
    if value != 0 or min(flat) < 0:
        return None
    pairs = list(zip(flat[::2], flat[1::2], strict=True))[::-1]
    return t.pad(x, [(0, 0)] * (x.rank - len(pairs)) + pairs)


def _reduction(kind: str) -> Translation:
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


def _average_pool(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle | None:
    x, kernel, stride, padding, ceil_mode, count, divisor = filled(args, (None, None, [], [0, 0], False, True, None))
    kernel, stride, padding = (list(v) * (2 if len(v) == 1 else 1) for v in (kernel, stride or kernel, padding))
    window = {"kernel": kernel, "stride": stride, "padding": padding}
    if ceil_mode or x.rank != 4:
        return None
    return t.apply("avg_pool", (x,), **window, ceil_mode=False, count_include_pad=count, divisor=divisor)


def _index(checked: bool) -> Translation:
    def translate(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle | None:
        x, indices = args
        first = next((i for i, index in enumerate(indices) if index is not None), 0)
        tensors = indices[first:]
        if not all(isinstance(i, Handle) and i.type.dtype in ("int64", "int32") for i in tensors):
            return None
        if first + len(tensors) != x.rank:
            return None
        return t.apply("index", (x, *tensors), first=first, checked=checked)

    return translate


def _embedding(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle | None:
    return t.apply("embedding", args[:2])  # padding_idx and the rest matter to gradients only


def _identity(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle:
    return args[0]  # type: ignore[no-any-return]


TRANSLATIONS: dict[Any, Translation] = {
    aten.add.Tensor: _arithmetic(Builder.add),
    aten.sub.Tensor: _arithmetic(Builder.minus),
    aten.mul.Tensor: _arithmetic(Builder.mul),
    aten.div.Tensor: _divide,
    aten.add.Scalar: _arithmetic(Builder.add),
    aten.sub.Scalar: _arithmetic(Builder.minus),
    aten.mul.Scalar: _arithmetic(Builder.mul),
    aten.div.Scalar: _divide,
    aten.neg.default: _negate,
    aten.mm.default: _matmul,
    aten.bmm.default: _matmul,
    aten.addmm.default: _addmm,
    aten.baddbmm.default: _addmm,
    aten.convolution.default: _convolution,
    aten.permute.default: _permute,
    aten.expand.default: _expand,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.cat.default: _cat,
    aten.constant_pad_nd.default: _pad,
    aten.sum.dim_IntList: _reduction("sum"),
    aten.sum.default: _reduction("sum"),
    aten.mean.dim: _reduction("mean"),
    aten.mean.default: _reduction("mean"),
    aten.amax.default: _reduction("amax"),
    aten.amin.default: _reduction("amin"),
    aten.avg_pool2d.default: _average_pool,
    aten._unsafe_index.Tensor: _index(checked=False),
    aten.index.Tensor: _index(checked=True),
    aten.embedding.default: _embedding,
    aten.alias.default: _identity,
    aten.clone.default: _identity,  # another layout of the same value; outputs keep theirs when a graph is rebuilt
    aten.pow.Tensor_Scalar: _power,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp,
    aten.clamp_max.default: _clamp_max,
    prims.convert_element_type.default: _convert,
    aten.cumsum.default: _cumsum,
    prims.rev.default: _flip,
    aten.flip.default: _flip,
    aten.diagonal.default: _diagonal,
    **{target: _function(name) for name, target in FUNCTIONS.items() if name != "div"},
    **dict.fromkeys(
        (
            aten.view.default,
            aten.reshape.default,
            aten._unsafe_view.default,
            aten.unsqueeze.default,
            aten.squeeze.dim,
            aten.squeeze.dims,
        ),
        _view_as_result,
    ),
}
