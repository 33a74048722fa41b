"""Products of matrices, convolutions and attention."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch

from torch_eqsat.graph.emitter import (
    Emitter,
    Lowering,
    Translation,
    Value,
    aten,
    filled,
    shape_of,
    torch_dtype,
    value_of,
)
from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.ir.program import COLUMN, CONVOLUTION, KERNEL
from torch_eqsat.ir.types import TensorType


def _from_matmul(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    return t.matmul(*args) if not kwargs else None


def _from_addmm(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    """alpha · (A B) + beta · C"""
    addend, a, b = args
    beta, alpha = kwargs.get("beta", 1), kwargs.get("alpha", 1)
    if not all(type(factor) in (int, float) and math.isfinite(factor) for factor in (alpha, beta)) or alpha == 0:
        return None

    def scaled(x: Handle, factor: float) -> Handle:
        return x if factor == 1 else t.mul(x, t.scalar(float(factor), x.type.dtype))

    product = scaled(t.matmul(a, b), alpha)
    return t.add(product, scaled(addend, beta)) if beta != 0 else product  # the kernel does not read C then


def _to_matmul(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    """A product of matrices, with a bias or without, in the form that its kernel needs."""
    x, w, bias = (*args, None)[:3]
    form = a.get(KERNEL)
    if len(shape_of(w)) == 3:
        return emit.call(aten.bmm.default, x, w)
    if len(shape_of(x)) > 2:  # rows of any rank, as torch's own linear layers compute them
        *leading, inner = shape_of(x)
        rows = emit.call(aten.reshape.default, x, [math.prod(leading), inner])
        y = _to_matmul(emit, a, [rows, w, bias])
        return emit.call(aten.reshape.default, y, [*leading, shape_of(w)[1]])
    if form is None:
        return emit.call(aten.mm.default, x, w) if bias is None else emit.call(aten.addmm.default, bias, x, w)
    rows, inner = shape_of(x)
    columns = shape_of(w)[1]
    turned = emit.call(aten.permute.default, w, [1, 0])
    if form == COLUMN:
        column = emit.call(aten.mm.default, turned, emit.call(aten.permute.default, x, [1, 0]))
        y = emit.call(aten.permute.default, column, [1, 0])
        return y if bias is None else emit.call(aten.add.Tensor, y, bias)
    assert form == CONVOLUTION, form
    pixels = emit.call(aten.permute.default, emit.call(aten.reshape.default, x, [1, 1, rows, inner]), [0, 3, 1, 2])
    kernel = emit.call(aten.reshape.default, turned, [columns, inner, 1, 1])
    y = _to_convolution(
        emit, {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}, [pixels, kernel, bias]
    )
    return emit.call(aten.reshape.default, emit.call(aten.permute.default, y, [0, 2, 3, 1]), [rows, columns])


def _from_convolution(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
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


def _to_convolution(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    zeros = [0] * len(a["stride"])
    x, w, bias = (*args, None)[:3]
    geometry = [list(a[name]) for name in ("stride", "padding", "dilation")]
    return emit.call(aten.convolution.default, x, w, bias, *geometry, False, zeros, a["groups"])


def _to_transposed_convolution(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    ones, zeros = [1] * len(a["stride"]), [0] * len(a["stride"])
    geometry = [list(a["stride"]), list(a["padding"]), ones, True, zeros, a["groups"]]
    return emit.call(aten.convolution.default, args[0], args[1], None, *geometry)


def dirac_kernel(shape: Sequence[int], groups: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The kernel [O, I/groups, *k] that copies input channel i to output channel i."""
    kernel = torch.zeros(tuple(shape), dtype=dtype, device=device)
    per_group = shape[0] // groups
    centre = tuple(k // 2 for k in shape[2:])
    for channel in range(shape[0]):
        inside = channel % per_group
        if inside < shape[1]:
            kernel[(channel, inside, *centre)] = 1
    return kernel


def _to_dirac(emit: Emitter, a: dict[str, Any], _: Sequence[Value]) -> Value:
    return emit.constant(lambda: dirac_kernel(a["shape"], a["groups"], torch_dtype(a["dtype"]), emit.device()))


def _from_attention(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    q, k, v, dropout, causal = filled(args, (None, None, None, 0.0, False))
    mask, scale = kwargs.get("attn_mask"), kwargs.get("scale")
    if dropout != 0.0 or (causal and mask is not None):
        return None
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if scale <= 0:  # the kernel masks by −∞ and multiplies
        return None
    operands = (q, k, v) if mask is None else (q, k, v, mask)
    return t.apply("sdpa", operands, causal=bool(causal), scale=scale)


def _with_rows(emit: Emitter, x: Value) -> Value:
    """``x`` with its last axis contiguous: the attention kernel reads rows and is silently wrong on anything else."""
    value = value_of(x)
    if value.stride(-1) == 1 or value.shape[-1] == 1:
        return x
    return emit.call(aten.clone.default, x, memory_format=torch.contiguous_format)


def _to_attention(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    args = [_with_rows(emit, x) for x in args[:3]] + list(args[3:])
    keywords = {"attn_mask": args[3]} if len(args) > 3 else {}
    target = aten._scaled_dot_product_flash_attention_for_cpu.default
    pair = emit.call(target, *args[:3], 0.0, a["causal"], scale=a["scale"], **keywords)
    return emit.call(operator.getitem, pair, 0)


FROM_ATEN: dict[Any, Translation] = {
    aten.mm.default: _from_matmul,
    aten.bmm.default: _from_matmul,
    aten.addmm.default: _from_addmm,
    aten.baddbmm.default: _from_addmm,
    aten.convolution.default: _from_convolution,
}
FROM_ITEMS: dict[tuple[Any, int], Translation] = {
    (aten._scaled_dot_product_flash_attention_for_cpu.default, 0): _from_attention,
}
TO_ATEN: dict[str, Lowering] = {
    "matmul": _to_matmul,
    "conv": _to_convolution,
    "conv_transpose": _to_transposed_convolution,
    "dirac": _to_dirac,
    "sdpa": _to_attention,
}
