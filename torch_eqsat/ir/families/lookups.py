"""Operators that read elements of their first operand by indices."""

from __future__ import annotations

from typing import Any

from torch_eqsat.ir.operator import (
    Attrs,
    Axes,
    Operator,
    Traffic,
    Types,
    always,
    declare,
    no_attributes,
    not_known,
    of_first,
    require,
    rounded_as_first,
    sample,
    tame_as_first,
)
from torch_eqsat.ir.types import TensorType, broadcast_shapes


def _index(attrs: Attrs, types: Types) -> TensorType:
    """x indexed on neighbouring axes, from ``first`` on, by broadcast integer tensors."""
    x, indices, first = types[0], types[1:], attrs["first"]
    stop = first + len(indices)
    require(0 <= first < stop <= x.rank, f"indices for the axes {first} to {stop} of {x}")
    return TensorType((*x.shape[:first], *broadcast_shapes(t.shape for t in indices), *x.shape[stop:]), x.dtype)


def _embedding_bag(_: Attrs, types: Types) -> TensorType:
    """Sums of table rows: bag b sums the rows that indices ``offsets[b]`` to ``offsets[b + 1]`` name."""
    table, index, offsets = types
    require(table.rank == 2 and index.rank == offsets.rank == 1, f"bags of {table}, {index}, {offsets}")
    return TensorType((offsets.shape[0], table.shape[1]), table.dtype)


def _embedding(_: Attrs, types: Types) -> TensorType:
    table, index = types
    require(table.rank == 2, f"embedding table of rank {table.rank}")
    return TensorType((*index.shape, table.shape[1]), table.dtype)


def _scatter_add(attrs: Attrs, types: Types) -> TensorType:
    """The first operand, with each element of the third added at the place along ``dim`` that the second names."""
    x, index, source = types
    dim = attrs["dim"]
    require(x.rank == index.rank == source.rank and 0 <= dim < x.rank, f"scattering {types} along {dim}")
    require(index.dtype == "int64" and x.dtype == source.dtype, f"scattering {types}")
    axes = enumerate(zip(index.shape, source.shape, x.shape, strict=True))
    fits = all(n <= read and (axis == dim or n <= size) for axis, (n, read, size) in axes)
    require(fits, f"indices {index.shape} into {x.shape} of {source.shape}")
    return x


def _indexed_axes(attrs: Attrs, types: Types, _: int) -> Axes | None:
    """The indexed axes, where as many axes of indices come in their place."""
    indices, first = types[1:], attrs["first"]
    same_rank = len(indices) == max(t.rank for t in indices)
    return frozenset(range(first, first + len(indices))) if same_rank else None


def _gathered(_: Attrs, __: Types, result: TensorType) -> Traffic:
    return Traffic(result.numel, result.bytes)


def _bagged(_: Attrs, types: Types, result: TensorType) -> Traffic:
    numel = types[1].numel * result.shape[1]
    return Traffic(numel, numel * result.bytes // max(result.numel, 1), calls=1)


def _scattered(_: Attrs, types: Types, result: TensorType) -> Traffic:
    return Traffic(result.numel + types[1].numel, sum(t.bytes for t in types), fused=False)


def _lookup(name: str, arity: int | None, infer: Any, traits: str, **own: Any) -> Operator:
    given = {
        "infer": infer, "acts_on": {}, "linear_in": (0,), "exact": always, "by_place": False, "interval": of_first,
        "rounded": rounded_as_first, "tame": tame_as_first, "work": "cheap", "follows_layout": False,
        "traffic": _gathered, "defaults": no_attributes, "variants": (), "looks_up": lambda _, __: [(1, 0)],
    }  # fmt: skip
    return declare(name, arity, traits, **given | own)


OPERATORS = [
    _lookup(
        "index",
        None,
        _index,
        "selection",
        acts_on={0: _indexed_axes},
        work="gather",
        follows_layout=True,
        looks_up=lambda attrs, count: [(position, attrs["first"] + position - 1) for position in range(1, count)],
        samples=(
            sample(2, 0, 2, "1", 1 / 2, "index({v}, {v}i, first=1)", "{v}i := integers(3)"),
            sample(2, 0, 2, "1", 2, "index({v}, {v}i, first=1)", "{v}i := integers(12)"),
            sample(2, 0, 4, "1", 1 / 2, "index({v}, {v}i, first=1)", "{v}i := integers(2)"),
            sample(
                3, 0, 4, "23", 1 / 9, "index({v}, {v}i, {v}j, first=2)", "{v}i := integers(2, 1)", "{v}j := integers(2)"
            ),
            sample(
                3,
                0,
                4,
                "23",
                16 / 9,
                "index({v}, {v}i, {v}j, first=2)",
                "{v}i := integers(8, 1)",
                "{v}j := integers(8)",
            ),
        ),
    ),
    _lookup(
        "embedding",
        2,
        _embedding,
        "selection",
        samples=(
            sample(2, 0, 2, "?", 1 / 2, "embedding({v}, {v}i)", "{v}i := integers(2)"),
            sample(2, 0, 2, "?", 2, "embedding({v}, {v}i)", "{v}i := integers(2, 4)"),
        ),
    ),
    _lookup(
        "embedding_bag",
        3,
        _embedding_bag,
        "",
        interval=not_known,
        rounded=always,
        traffic=_bagged,
        samples=(
            sample(
                3,
                0,
                2,
                "?",
                1 / 2,
                "embedding_bag({v}, {v}i, {v}o)",
                "{v}i := integers(4)",
                "{v}o := integers(2, repeats=1)",
            ),
        ),
    ),
    _lookup(
        "scatter_add",
        3,
        _scatter_add,
        "",
        linear_in=(),
        interval=not_known,
        rounded=lambda _, operands, *__: operands[0].rounded or operands[2].rounded,
        tame=lambda _, operands: operands[0].tame and operands[2].tame,
        work="gather",
        traffic=_scattered,
        looks_up=lambda attrs, _: [(1, attrs["dim"])],
        samples=(),
    ),
]
