"""Copies of a value that lie in memory as another value does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch.fx import Node as FxNode
from torch.fx.experimental.symbolic_shapes import statically_known_true

from torch_eqsat.graph.emitter import aten

prims = torch.ops.prims
Emit = Callable[..., FxNode]


def same_strides(a: FxNode, b: FxNode) -> bool:
    """Whether two nodes of one shape lie alike in memory; along axes of size 1 there is nothing to differ in. Symbolic
    sizes are not guarded."""
    x, y = a.meta.get("val"), b.meta.get("val")
    if not isinstance(x, torch.Tensor) or not isinstance(y, torch.Tensor):
        return True
    return all(
        statically_known_true(s == t) or statically_known_true(n == 1)
        for n, s, t in zip(x.shape, x.stride(), y.stride(), strict=True)
    )


def copied_with_strides(emit: Emit, new: FxNode, old: FxNode, *, returned: bool = False) -> FxNode | None:
    """A copy of ``new`` with the strides of ``old``, which has its shape; None where no calls make one (overlapping
    memory, symbolic sizes).

    Axes of stride 0 are expanded last, axes in the order of their strides are made contiguous, and what lies in the
    gaps between rows, of a slice of a larger value, is filled with zeros. Of a result that is ``returned`` the gaps are
    left as they are: Inductor gives results exactly the strides that they had, but other values only their order.
    """
    value = old.meta["val"]
    if not all(type(n) is int for n in (*value.shape, *value.stride())) or value.numel() == 0:
        return _with_symbolic_sizes(emit, new, old)
    repeated = [d for d, (n, s) in enumerate(zip(value.shape, value.stride(), strict=True)) if s == 0 and n > 1]
    for dim in repeated:
        new = emit(aten.slice.Tensor, new, dim, 0, 1)
    order = sorted(
        range(value.dim()), key=lambda d: -value.stride(d) if value.shape[d] > 1 and d not in repeated else 1
    )
    stored = _stored_sizes([new.meta["val"].shape[d] for d in order], [value.stride(d) for d in order])
    if stored is None:
        return None
    if returned and not repeated and _has_gaps(new, order, stored):
        fresh = emit(aten.lift_fresh_copy.default, new)  # of a view Inductor keeps the order of strides alone
        copy = emit(prims.copy_strided.default, fresh, list(value.stride()))
    else:
        copy = _laid_out(emit, new, order, stored)
    if repeated:
        copy = emit(aten.expand.default, copy, list(value.shape))
    return copy if same_strides(copy, old) else None


def _with_symbolic_sizes(emit: Emit, new: FxNode, old: FxNode) -> FxNode | None:
    for layout in (torch.contiguous_format, torch.channels_last):
        if layout is torch.channels_last and old.meta["val"].dim() != 4:
            continue
        copy = emit(aten.clone.default, new, memory_format=layout)
        if same_strides(copy, old):
            return copy
    return None


def _stored_sizes(sizes: Sequence[int], strides: Sequence[int]) -> list[int] | None:
    """What each axis, outermost first, is padded to so that it has its stride, and at the end how many numbers lie
    between two elements of the innermost axis; None for memory that overlaps. Axes of size 1 come last, and have
    none."""
    axes = [(n, s) for n, s in zip(sizes, strides, strict=True) if n > 1]
    if not axes:
        return [1] * len(sizes) + [1]
    stored = [axes[0][0]]
    for (_, outer), (n, inner) in pairwise(axes):
        if inner == 0 or outer % inner or outer // inner < n:
            return None
        stored.append(outer // inner)
    return [*stored, *[1] * (len(sizes) - len(axes)), axes[-1][1]]


def _has_gaps(new: FxNode, order: Sequence[int], stored: Sequence[int]) -> bool:
    """Whether more is stored than the elements of ``new``: logits of one token lie as far apart as those of all."""
    sizes = new.meta["val"].shape
    return list(stored) != [*(sizes[d] for d in order), 1]


def _laid_out(emit: Emit, new: FxNode, order: Sequence[int], stored: Sequence[int]) -> FxNode:
    *sizes, step = stored
    in_order = list(order) == sorted(order)
    value = new if in_order else emit(aten.permute.default, new, list(order))
    shape = list(value.meta["val"].shape)
    gaps = [size - n for size, n in zip(sizes, shape, strict=True)]
    if step > 1 or any(gaps):
        value = _padded(emit, value, shape, gaps, step)
    else:
        value = emit(aten.clone.default, value, memory_format=torch.contiguous_format)
    return value if in_order else emit(aten.permute.default, value, [list(order).index(d) for d in range(len(order))])


def _padded(emit: Emit, value: FxNode, shape: Sequence[int], gaps: Sequence[int], step: int) -> FxNode:
    """``value`` as a slice of a contiguous one that is larger by ``gaps``, each element ``step`` from the next."""
    inner = max((d for d, n in enumerate(shape) if n > 1), default=len(shape) - 1)
    if step > 1:
        value = emit(aten.unsqueeze.default, value, inner + 1)
        gaps = [*gaps[: inner + 1], step - 1, *gaps[inner + 1 :]]
    flat = [n for gap in reversed(gaps) for n in (0, gap)]
    value = emit(aten.constant_pad_nd.default, value, flat, 0)
    for dim, gap in enumerate(gaps):
        if gap and not (step > 1 and dim == inner + 1):
            value = emit(aten.slice.Tensor, value, dim, 0, shape[dim])
    return emit(aten.select.int, value, inner + 1, 0) if step > 1 else value
