"""What the items of tuples mean that ATen operators return: parts of splits, moments, attention, pools, bags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_eqsat.graph.translate import aten, filled, prims
from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.ir.types import TensorType


def translate_item(
    t: Builder, target: Any, args: Sequence[Any], kwargs: dict[str, Any], index: int, result: TensorType
) -> Handle | None:
    """What item ``index`` of the tuple that ``target`` returns means in the language."""
    if target in (aten.split.Tensor, aten.split_with_sizes.default):
        x, sizes, dim = (*args, 0)[:3]
        return _part_of_split(t, x, sizes, dim, index)
    if target is aten.var_mean.correction:
        x, dims = args[0], args[1] if len(args) > 1 and args[1] is not None else range(args[0].rank)
        correction = kwargs.get("correction")
        if x.rank == 0:
            return x if index == 1 and x.type == result else None  # the variance of one number may be NaN
        kind = "mean" if index == 1 else f"var{float(1 if correction is None else correction)}"
        reduced = t.reduce(x, kind, [d % x.rank for d in dims])
        return t.view(reduced, result.shape)
    if target is aten._scaled_dot_product_flash_attention_for_cpu.default and index == 0:
        return _attention(t, args, kwargs, result)
    if target is prims._low_memory_max_pool_with_offsets.default and index == 0:
        return _max_pool(t, args)
    if target in (aten._embedding_bag.default, aten._embedding_bag_forward_only.default) and index == 0:
        return _bags(t, args, kwargs)
    return None


def _max_pool(t: Builder, args: Sequence[Any]) -> Handle | None:
    x, kernel, stride, padding, dilation, ceil_mode = args
    if ceil_mode or x.rank != 4 or any(d != 1 for d in dilation):
        return None
    return t.apply("max_pool", (x,), kernel=kernel, stride=stride, padding=padding)


def _bags(t: Builder, args: Sequence[Any], kwargs: dict[str, Any]) -> Handle | None:
    """Sums of rows; means, maxima and weights are left alone."""
    table, index, offsets, _, mode, *rest = filled(args, (None, None, None, False, 0, False, None, False, -1))
    _, weights, last, padding_index = rest
    plain = mode == 0 and weights is None and not last and padding_index < 0 and not kwargs
    return t.apply("embedding_bag", (table, index, offsets)) if plain else None


def _attention(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    q, k, v, dropout, causal = filled(args, (None, None, None, 0.0, False))
    mask, scale = kwargs.get("attn_mask"), kwargs.get("scale")
    if dropout != 0.0 or (causal and mask is not None):
        return None
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if scale <= 0:  # the kernel masks by −∞ and multiplies
        return None
    operands = (q, k, v) if mask is None else (q, k, v, mask)
    return t.apply("sdpa", operands, causal=bool(causal), scale=scale)


def _part_of_split(t: Builder, x: Handle, sizes: Any, dim: int, index: int) -> Handle:
    dim %= x.rank
    if isinstance(sizes, int):
        start = sizes * index
        return t.slice(x, dim, start, min(start + sizes, x.shape[dim]))
    start = sum(sizes[:index])
    return t.slice(x, dim, start, start + sizes[index])
