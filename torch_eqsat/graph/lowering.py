"""The meaning of each operator of the language as ATen calls.

One table serves three readers: rebuilding emits FX nodes with it, the judge and the tests of laws run it on tensors.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from torch_eqsat.ir.program import COLUMN, CONVOLUTION, KERNEL
from torch_eqsat.ir.term import Node
from torch_eqsat.ir.types import TensorType

aten = torch.ops.aten
Value = Any
"""A tensor, an FX node or (for the operator ``scalar``) a Python number."""


class Emitter(Protocol):
    """Calls an ATen operator: runs it, or adds it to a graph."""

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Value: ...

    def constant(self, make: Callable[[], torch.Tensor]) -> Value: ...

    def number(self, value: float, shape: Sequence[int], dtype: torch.dtype) -> Value: ...

    def device(self) -> torch.device: ...

    def store(self, value: Value) -> None:
        """Have ``value`` computed once and stored, not anew by each of its readers."""
        ...


class Evaluator:
    """An Emitter that runs operators on real tensors."""

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Value:
        if target is torch.ops.prims.convert_element_type.default:  # prims have no gradient
            return args[0].to(args[1])
        if target is torch.ops.prims.rev.default:
            return args[0].flip(args[1])
        return target(*args, **kwargs)

    def constant(self, make: Callable[[], torch.Tensor]) -> Value:
        return make()

    def number(self, value: float, shape: Sequence[int], dtype: torch.dtype) -> Value:
        return torch.full(tuple(shape), value, dtype=dtype, device=self.device())

    def device(self) -> torch.device:
        return torch.device("cpu")

    def store(self, value: Value) -> None:
        """Values are tensors, and stored."""


def torch_dtype(name: str) -> torch.dtype:
    """The dtype that the language calls ``name``."""
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


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


Lowering = Callable[[Emitter, dict[str, Any], Sequence[Value]], Value]


def _arithmetic(target: Any, on_numbers: Callable[[Any, Any], Any]) -> Lowering:
    def lower(emit: Emitter, _: dict[str, Any], args: Sequence[Value]) -> Value:
        a, b = args
        if isinstance(a, (int, float)) and isinstance(b, (int, float)):
            return on_numbers(a, b)
        if isinstance(a, (int, float)):
            a, b = b, a
        return emit.call(target, a, b)

    return lower


def _matmul(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    """A product of matrices, with a bias or without, in the form that its kernel needs."""
    x, w, bias = (*args, None)[:3]
    form = a.get(KERNEL)
    if form is None:
        return emit.call(aten.mm.default, x, w) if bias is None else emit.call(aten.addmm.default, bias, x, w)
    rows, inner = _shape(x)
    columns = _shape(w)[1]
    turned = emit.call(aten.permute.default, w, [1, 0])
    if form == COLUMN:
        column = emit.call(aten.mm.default, turned, emit.call(aten.permute.default, x, [1, 0]))
        y = emit.call(aten.permute.default, column, [1, 0])
        return y if bias is None else emit.call(aten.add.Tensor, y, bias)
    assert form == CONVOLUTION, form
    pixels = emit.call(aten.permute.default, emit.call(aten.reshape.default, x, [1, 1, rows, inner]), [0, 3, 1, 2])
    kernel = emit.call(aten.reshape.default, turned, [columns, inner, 1, 1])
    y = _convolution(
        emit, {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}, [pixels, kernel, bias]
    )
    return emit.call(aten.reshape.default, emit.call(aten.permute.default, y, [0, 2, 3, 1]), [rows, columns])


def _shape(x: Value) -> list[int]:
    return list((x.meta["val"] if isinstance(x, torch.fx.Node) else x).shape)


def _convolution(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    zeros = [0] * len(a["stride"])
    x, w, bias = (*args, None)[:3]
    geometry = [list(a[name]) for name in ("stride", "padding", "dilation")]
    return emit.call(aten.convolution.default, x, w, bias, *geometry, False, zeros, a["groups"])


def _transposed_convolution(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    ones, zeros = [1] * len(a["stride"]), [0] * len(a["stride"])
    geometry = [list(a["stride"]), list(a["padding"]), ones, True, zeros, a["groups"]]
    return emit.call(aten.convolution.default, args[0], args[1], None, *geometry)


def _with_rows(emit: Emitter, x: Value) -> Value:
    """``x`` with its last axis contiguous: the attention kernel reads rows and is silently wrong on anything else."""
    value = x.meta["val"] if isinstance(x, torch.fx.Node) else x
    if value.stride(-1) == 1 or value.shape[-1] == 1:
        return x
    return emit.call(aten.clone.default, x, memory_format=torch.contiguous_format)


def _attention(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    args = [_with_rows(emit, x) for x in args[:3]] + list(args[3:])
    keywords = {"attn_mask": args[3]} if len(args) > 3 else {}
    target = aten._scaled_dot_product_flash_attention_for_cpu.default
    pair = emit.call(target, *args[:3], 0.0, a["causal"], scale=a["scale"], **keywords)
    return emit.call(operator.getitem, pair, 0)


def _reduction(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
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


def _pool(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    window = [list(a[name]) for name in ("kernel", "stride", "padding")]
    return emit.call(aten.avg_pool2d.default, args[0], *window, a["ceil_mode"], a["count_include_pad"], a["divisor"])


def _max_pool(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    window = [list(a[name]) for name in ("kernel", "stride", "padding")]
    return emit.call(operator.getitem, emit.call(aten.max_pool2d_with_indices.default, args[0], *window), 0)


def _clamp(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    """Of integers the bounds are integers: 0 and 0.0 are equal as attributes, but 0.0 makes floats of them.

    A call for each bound: Inductor has no kernel for both at once, and takes clamp apart before this pass.
    """
    y = args[0]
    value = y.meta["val"] if isinstance(y, torch.fx.Node) else y
    for target, bound in ((aten.clamp_min.default, a["low"]), (aten.clamp_max.default, a["high"])):
        if bound is not None:
            y = emit.call(target, y, bound if value.is_floating_point() else int(bound))
    return y


def _bags(emit: Emitter, _: dict[str, Any], args: Sequence[Value]) -> Value:
    return emit.call(operator.getitem, emit.call(aten._embedding_bag.default, *args), 0)


def _pad(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    flat = [n for pair in reversed(a["pads"]) for n in pair]
    return emit.call(aten.constant_pad_nd.default, args[0], flat, 0.0)


def _slice(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    return emit.call(aten.slice.Tensor, args[0], a["dim"], a["start"], a["stop"])


def _filter_bank(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    # Inductor would compute what is read here, a padded image as a rule, again in each filter and each tap of it.
    emit.store(args[0])
    dim, step = a["dim"], a["step"]
    starts = [a["dilation"] * k for k in range(len(a["coefficients"][0]))]
    reach = (_shape(args[0])[dim] - starts[-1] - 1) // step * step + 1
    inputs = [emit.call(aten.slice.Tensor, args[0], dim, start, start + reach, step) for start in starts]
    return emit.call(aten.cat.default, [_combination(emit, row, inputs) for row in a["coefficients"]], a["into"])


def _combination(emit: Emitter, coefficients: Sequence[float], inputs: Sequence[Value]) -> Value:
    """Σ coefficient · input; a coefficient that is not zero is there by the operator's type rule."""
    total: Value = None
    for coefficient, x in zip(coefficients, inputs, strict=True):
        if coefficient == 0:
            continue
        term = x if coefficient == 1 else emit.call(aten.mul.Tensor, x, coefficient)
        total = term if total is None else emit.call(aten.add.Tensor, total, term)
    return total


def _index(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    target = aten.index.Tensor if a.get("checked") else aten._unsafe_index.Tensor
    return emit.call(target, args[0], [*[None] * a["first"], *args[1:]])


def _dirac(emit: Emitter, a: dict[str, Any], _: Sequence[Value]) -> Value:
    return emit.constant(lambda: dirac_kernel(a["shape"], a["groups"], torch_dtype(a["dtype"]), emit.device()))


# Elementwise functions whose operands are tensors alone, by their name in the language.
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
}


def _function(target: Any) -> Lowering:
    return lambda emit, _, args: emit.call(target, *args)


LOWERINGS: dict[str, Lowering] = {
    "add": _arithmetic(aten.add.Tensor, lambda a, b: a + b),
    "mul": _arithmetic(aten.mul.Tensor, lambda a, b: a * b),
    "matmul": _matmul,
    "bmm": lambda emit, _, args: emit.call(aten.bmm.default, *args),
    "conv": _convolution,
    "conv_transpose": _transposed_convolution,
    "sdpa": _attention,
    "permute": lambda emit, a, args: emit.call(aten.permute.default, args[0], list(a["dims"])),
    "view": lambda emit, a, args: emit.call(aten.reshape.default, args[0], list(a["shape"])),
    "expand": lambda emit, a, args: emit.call(aten.expand.default, args[0], list(a["shape"])),
    "slice": _slice,
    "cat": lambda emit, a, args: emit.call(aten.cat.default, list(args), a["dim"]),
    "pad": _pad,
    "filter_bank": _filter_bank,
    "reduce": _reduction,
    "avg_pool": _pool,
    "index": _index,
    "embedding": lambda emit, _, args: emit.call(aten.embedding.default, *args),
    "embedding_bag": _bags,
    "dirac": _dirac,
    "max_pool": _max_pool,
    "clamp": _clamp,
    "convert": lambda emit, a, args: emit.call(
        torch.ops.prims.convert_element_type.default, args[0], torch_dtype(a["dtype"])
    ),
    "cumsum": lambda emit, a, args: emit.call(aten.cumsum.default, args[0], a["dim"]),
    "flip": lambda emit, a, args: emit.call(torch.ops.prims.rev.default, args[0], [a["dim"]]),
    "diagonal": lambda emit, _, args: emit.call(aten.diagonal.default, args[0], 0, -2, -1),
    **{name: _function(target) for name, target in FUNCTIONS.items()},
}


def lower(emit: Emitter, node: Node, args: Sequence[Value], types: Sequence[TensorType]) -> Value:
    """``node`` applied to ``args`` (whose types are ``types``) through ``emit``.

    Raises KeyError for the operators that only the captured graph can give a meaning (input, fx, pointwise).
    """
    attrs = dict(node.attrs)
    if node.op == "scalar":
        return attrs["value"]
    if node.op not in ("add", "mul"):
        args = [_as_tensor(emit, arg, type_) for arg, type_ in zip(args, types, strict=True)]
    if node.op == "matmul" and types[0].rank == 3:
        return LOWERINGS["bmm"](emit, attrs, args)
    return LOWERINGS[node.op](emit, attrs, args)


def _as_tensor(emit: Emitter, arg: Value, type_: TensorType) -> Value:
    if isinstance(arg, (int, float)):
        return emit.number(arg, type_.shape, torch_dtype(type_.dtype))
    return arg
