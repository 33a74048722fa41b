"""Views, parts, concatenations and paddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_eqsat.graph.emitter import (
    Emitter,
    Lowering,
    Translation,
    Value,
    aten,
    filled,
    prims,
    shape_of,
)
from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.ir.types import TensorType


def _from_permute(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle:
    return t.permute(args[0], [d % args[0].rank for d in args[1]])


def _from_view_as_result(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle:
    return t.view(args[0], result.shape)


def _to_view(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    (x,), shape = args, list(a["shape"])
    if shape_of(x) == [1, *shape]:  # behind a product with a packed weight Inductor cannot read a reshape to one axis
        return emit.call(aten.squeeze.dim, x, 0)
    return emit.call(aten.reshape.default, x, shape)


def _from_expand(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle:
    return t.expand(args[0], result.shape)


def _bounds(size: int, start: int | None, stop: int | None) -> tuple[int, int]:
    first, last, _ = slice(start, stop).indices(size)
    return first, last


def _from_slice(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle | None:
    x, dim, start, stop, step = filled(args, (None, 0, None, None, 1))
    if not all(type(n) is int or n is None for n in (start, stop)):
        return None
    dim %= x.rank
    first, last = _bounds(x.shape[dim], start, stop)
    return t.slice(x, dim, first, last) if step == 1 else _every(t, x, dim, first, step, result.shape)


def _every(t: Builder, x: Handle, dim: int, first: int, step: int, shape: Sequence[int]) -> Handle | None:
    """Every ``step``-th element from the ``first``: of rows of so many elements, one column. None where there are no
    such rows, because the last one would end behind the axis."""
    count = shape[dim]
    begin = min(first, x.shape[dim] - count * step)
    if begin < 0 or first - begin >= step:
        return None
    rows = t.slice(x, dim, begin, begin + count * step)
    apart = t.view(rows, (*shape[:dim], count, step, *shape[dim + 1 :]))
    return t.view(t.slice(apart, dim + 1, first - begin, first - begin + 1), shape)


def _from_select(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    x, dim, index = args
    if type(index) is not int:
        return None
    dim %= x.rank
    index %= x.shape[dim]
    return t.view(t.slice(x, dim, index, index + 1), result.shape)


def _to_slice(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    return emit.call(aten.slice.Tensor, args[0], a["dim"], a["start"], a["stop"])


def _from_cat(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle | None:
    parts, dim = args[0], args[1] if len(args) > 1 else 0
    if any(not isinstance(p, Handle) or p.rank == 0 or p.shape == (0,) for p in parts):
        return None
    return t.cat(parts, dim % parts[0].rank)


def _from_pad(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle | None:
    x, flat, value = (*args, 0)[:3]
    if value != 0 or str(value) == "-0.0" or min(flat) < 0:
        return None
    pairs = list(zip(flat[::2], flat[1::2], strict=True))[::-1]
    return t.pad(x, [(0, 0)] * (x.rank - len(pairs)) + pairs)


def _to_pad(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    flat = [n for pair in reversed(a["pads"]) for n in pair]
    return emit.call(aten.constant_pad_nd.default, args[0], flat, 0.0)


def _from_flip(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    x, dims = args
    for dim in dims:
        x = t.apply("flip", (x,), dim=dim % x.rank)
    return x  # type: ignore[no-any-return]


def _from_diagonal(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    x, offset, first, second = filled(args, (None, 0, 0, 1))
    if kwargs or offset != 0 or (first % x.rank, second % x.rank) != (x.rank - 2, x.rank - 1):
        return None
    return t.apply("diagonal", (x,))


def _from_identity(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle:
    return args[0]  # type: ignore[no-any-return]


FROM_ATEN: dict[Any, Translation] = {
    aten.permute.default: _from_permute,
    aten.expand.default: _from_expand,
    aten.slice.Tensor: _from_slice,
    aten.select.int: _from_select,
    aten.cat.default: _from_cat,
    aten.constant_pad_nd.default: _from_pad,
    prims.rev.default: _from_flip,
    aten.flip.default: _from_flip,
    aten.diagonal.default: _from_diagonal,
    aten.alias.default: _from_identity,
    # Another layout of the same value; outputs keep theirs when a graph is rebuilt.
    **dict.fromkeys(
        (aten.clone.default, aten.lift_fresh_copy.default, prims.copy_strided.default),
        _from_identity,
    ),
    **dict.fromkeys(
        (
            aten.view.default,
            aten.reshape.default,
            aten._unsafe_view.default,
            aten.unsqueeze.default,
            aten.squeeze.dim,
            aten.squeeze.dims,
        ),
        _from_view_as_result,
    ),
}
TO_ATEN: dict[str, Lowering] = {
    "permute": lambda emit, a, args: emit.call(aten.permute.default, args[0], list(a["dims"])),
    "view": _to_view,
    "expand": lambda emit, a, args: emit.call(aten.expand.default, args[0], list(a["shape"])),
    "slice": _to_slice,
    "cat": lambda emit, a, args: emit.call(aten.cat.default, list(args), a["dim"]),
    "pad": _to_pad,
    "flip": lambda emit, a, args: emit.call(prims.rev.default, args[0], [a["dim"]]),
    "diagonal": lambda emit, _, args: emit.call(aten.diagonal.default, args[0], 0, -2, -1),
}
