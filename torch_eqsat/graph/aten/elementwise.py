"""Arithmetic and elementwise functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch_eqsat.graph.emitter import (
    Emitter,
    Lowering,
    Translation,
    Value,
    aten,
    filled,
    prims,
    torch_dtype,
    value_of,
)
from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.ir.types import TensorType


def _from_arithmetic(combine: Callable[[Builder, Handle, Handle], Handle]) -> Translation:
    def translate(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
        if kwargs:  # alpha, rounding_mode
            return None
        tensors = [a for a in args if isinstance(a, Handle)]
        if not tensors or not all(a.type.is_floating for a in tensors):
            return None
        if not all(isinstance(a, Handle) or (type(a) in (int, float) and not is_negative_zero(a)) for a in args):
            return None
        a, b = _of_one_dtype(
            t, [a if isinstance(a, Handle) else t.scalar(float(a), result.dtype) for a in args], result
        )
        return combine(t, a, b)

    return translate


def is_negative_zero(number: float) -> bool:
    """Whether ``number`` is −0, which is equal to 0: as attributes of terms both would be one."""
    return number == 0 and math.copysign(1.0, number) < 0


def _of_one_dtype(t: Builder, operands: Sequence[Handle], result: TensorType) -> list[Handle]:
    """``operands`` in the dtype of the result, which arithmetic of floating tensors of several dtypes converts to."""
    dtype = result.dtype
    return [
        x if x.type.dtype == dtype or not x.type.is_floating else t.apply("convert", (x,), dtype=dtype)
        for x in operands
    ]


def _from_negate(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle | None:
    return t.mul(args[0], t.scalar(-1.0, args[0].type.dtype)) if args[0].type.is_floating else None


def _from_power(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    x, exponent = args
    return t.mul(x, x) if exponent == 2 and x.type.is_floating else None


def _to_arithmetic(target: Any, on_numbers: Callable[[Any, Any], Any]) -> Lowering:
    def lower(emit: Emitter, _: dict[str, Any], args: Sequence[Value]) -> Value:
        a, b = args
        if isinstance(a, (int, float)) and isinstance(b, (int, float)):
            return on_numbers(a, b)
        if isinstance(a, (int, float)):
            a, b = b, a
        return emit.call(target, a, b)

    return lower


def _from_divide(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    x, d = args
    if kwargs or not isinstance(x, Handle) or not x.type.is_floating or (isinstance(d, int | float) and d == 0):
        return None
    if isinstance(d, Handle):
        return t.apply("div", _of_one_dtype(t, args, result)) if d.type.is_floating else None
    normal = torch.finfo(getattr(torch, x.type.dtype))
    if not normal.tiny <= abs(1.0 / d) <= normal.max:  # 0 / 1e-40 is 0, 0 · 1e40 is NaN where that is infinite
        return None
    return t.mul(x, t.scalar(1.0 / d, x.type.dtype))


def _from_function(name: str) -> Translation:
    """The call is the operator ``name`` of the language over the same operands, all of them tensors."""

    def translate(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
        if kwargs or not all(isinstance(a, Handle) for a in args):
            return None
        return t.apply(name, _of_one_dtype(t, args, result) if result.is_floating else args)

    return translate


def _to_function(target: Any) -> Lowering:
    return lambda emit, _, args: emit.call(target, *args)


def _from_clamp(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    x, low, high = filled(args, (None, None, None))
    if kwargs or not x.type.is_floating or not all(b is None or type(b) in (int, float) for b in (low, high)):
        return None
    if any(b is not None and (b != b or is_negative_zero(b)) for b in (low, high)):  # NaN makes everything NaN
        return None
    return t.apply("clamp", (x,), low=low, high=high)


def _from_clamp_max(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    return _from_clamp(t, (args[0], None, args[1]), kwargs, result)


def _to_clamp(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    """Of integers the bounds are integers: 0 and 0.0 are equal as attributes, but 0.0 makes floats of them.

    A call for each bound: Inductor has no kernel for both at once, and takes clamp apart before this pass.
    """
    y = args[0]
    value = value_of(y)
    for target, bound in ((aten.clamp_min.default, a["low"]), (aten.clamp_max.default, a["high"])):
        if bound is not None:
            y = emit.call(target, y, bound if value.is_floating_point() else int(bound))
    return y


def _from_convert(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle | None:
    return args[0] if args[0].type == result else t.apply("convert", args[:1], dtype=result.dtype)


def _to_convert(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    return emit.call(prims.convert_element_type.default, args[0], torch_dtype(a["dtype"]))


# Functions whose operands are tensors alone, by their name in the language.
FUNCTIONS: dict[str, Any] = {
    "div": aten.div.Tensor,
    "maximum": aten.maximum.default,
    "minimum": aten.minimum.default,
    "where": aten.where.self,
    "equal": aten.eq.Tensor,
    "relu": aten.relu.default,
    "exp": aten.exp.default,
    "log": aten.log.default,
    "sqrt": aten.sqrt.default,
    "rsqrt": aten.rsqrt.default,
    "reciprocal": aten.reciprocal.default,
    "sigmoid": aten.sigmoid.default,
    "tanh": aten.tanh.default,
    "erf": aten.erf.default,
    "abs": aten.abs.default,
    "hypot": aten.hypot.default,
}


FROM_ATEN: dict[Any, Translation] = {
    aten.add.Tensor: _from_arithmetic(Builder.add),
    aten.sub.Tensor: _from_arithmetic(Builder.minus),
    aten.mul.Tensor: _from_arithmetic(Builder.mul),
    aten.add.Scalar: _from_arithmetic(Builder.add),
    aten.sub.Scalar: _from_arithmetic(Builder.minus),
    aten.mul.Scalar: _from_arithmetic(Builder.mul),
    aten.neg.default: _from_negate,
    aten.pow.Tensor_Scalar: _from_power,
    aten.clamp.default: _from_clamp,
    aten.clamp_min.default: _from_clamp,
    aten.clamp_max.default: _from_clamp_max,
    prims.convert_element_type.default: _from_convert,
    **{target: _from_function(name) for name, target in FUNCTIONS.items()},
    aten.div.Tensor: _from_divide,
    aten.div.Scalar: _from_divide,
}
TO_ATEN: dict[str, Lowering] = {
    "add": _to_arithmetic(aten.add.Tensor, lambda a, b: a + b),
    "mul": _to_arithmetic(aten.mul.Tensor, lambda a, b: a * b),
    "clamp": _to_clamp,
    "convert": _to_convert,
    **{name: _to_function(target) for name, target in FUNCTIONS.items()},
}
