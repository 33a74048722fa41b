"""What ATen calls mean in the tensor language, by their overload, and what the items of tuples mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_eqsat.graph.aten import elementwise, layout, lookups, products, reductions
from torch_eqsat.graph.emitter import Translation, aten
from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.ir.types import TensorType

TRANSLATIONS: dict[Any, Translation] = {
    **elementwise.FROM_ATEN,
    **products.FROM_ATEN,
    **layout.FROM_ATEN,
    **reductions.FROM_ATEN,
    **lookups.FROM_ATEN,
}
ITEMS: dict[tuple[Any, int], Translation] = {**products.FROM_ITEMS, **reductions.FROM_ITEMS, **lookups.FROM_ITEMS}
_SPLITS = (aten.split.Tensor, aten.split_with_sizes.default)


def translate_item(
    t: Builder, target: Any, args: Sequence[Any], kwargs: dict[str, Any], index: int, result: TensorType
) -> Handle | None:
    """What item ``index`` of the tuple that ``target`` returns means in the language."""
    if target in _SPLITS:  # of any number of parts
        x, sizes, dim = (*args, 0)[:3]
        return _part_of_split(t, x, sizes, dim, index)
    translation = ITEMS.get((target, index))
    return None if translation is None else translation(t, args, kwargs, result)


def _part_of_split(t: Builder, x: Handle, sizes: Any, dim: int, index: int) -> Handle:
    dim %= x.rank
    if isinstance(sizes, int):
        start = sizes * index
        return t.slice(x, dim, start, min(start + sizes, x.shape[dim]))
    start = sum(sizes[:index])
    return t.slice(x, dim, start, start + sizes[index])
