"""Elements that are read by indices."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from torch_eqsat.graph.emitter import (
    Emitter,
    Lowering,
    Translation,
    Value,
    aten,
    filled,
)
from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.ir.types import TensorType


def _from_index(checked: bool) -> Translation:
    def translate(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle | None:
        x, indices = args
        first = next((i for i, index in enumerate(indices) if index is not None), 0)
        tensors = indices[first:]
        if not all(isinstance(i, Handle) and i.type.dtype in ("int64", "int32") for i in tensors):
            return None
        return t.apply("index", (x, *tensors), first=first, checked=checked)

    return translate


def _to_index(emit: Emitter, a: dict[str, Any], args: Sequence[Value]) -> Value:
    target = aten.index.Tensor if a.get("checked") else aten._unsafe_index.Tensor
    return emit.call(target, args[0], [*[None] * a["first"], *args[1:]])


def _from_embedding(t: Builder, args: Sequence[Any], _: dict[str, Any], result: TensorType) -> Handle | None:
    return t.apply("embedding", args[:2])  # padding_idx and the rest matter to gradients only


def _from_bags(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    """Sums of rows; means, maxima and weights are left alone."""
    table, index, offsets, _, mode, *rest = filled(args, (None, None, None, False, 0, False, None, False, -1))
    _, weights, last, padding_index = rest
    plain = mode == 0 and weights is None and not last and padding_index < 0 and not kwargs
    return t.apply("embedding_bag", (table, index, offsets)) if plain else None


def _to_bags(emit: Emitter, _: dict[str, Any], args: Sequence[Value]) -> Value:
    return emit.call(operator.getitem, emit.call(aten._embedding_bag.default, *args), 0)


def _from_scatter_add(t: Builder, args: Sequence[Any], kwargs: dict[str, Any], result: TensorType) -> Handle | None:
    x, dim, index, source = args
    return t.apply("scatter_add", (x, index, source), dim=dim % x.rank) if x.rank and not kwargs else None


FROM_ATEN: dict[Any, Translation] = {
    aten._unsafe_index.Tensor: _from_index(checked=False),
    aten.index.Tensor: _from_index(checked=True),
    aten.embedding.default: _from_embedding,
    aten.scatter_add.default: _from_scatter_add,
}
FROM_ITEMS: dict[tuple[Any, int], Translation] = {
    (aten._embedding_bag.default, 0): _from_bags,
    (aten._embedding_bag_forward_only.default, 0): _from_bags,
}
TO_ATEN: dict[str, Lowering] = {
    "index": _to_index,
    "embedding": lambda emit, _, args: emit.call(aten.embedding.default, *args),
    "embedding_bag": _to_bags,
    "scatter_add": lambda emit, a, args: emit.call(aten.scatter_add.default, args[0], a["dim"], *args[1:]),
}
