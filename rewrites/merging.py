"""Siblings become one larger operator, of whose result each reads its part.

A merge gains nothing by itself (three projections of 128 rows: 1.00x). It gains for few rows, where most of the time
goes into reading the weights; the measured costs decide. The input products of a recurrence are such siblings: the
products that do not depend on the state become one product for all steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.laws.law import siblings
from torch_eqsat.laws.pattern import pointwise

Member = dict[str, Handle]


def _parts(t: Builder, merged: Handle, sizes: Sequence[int], dim: int) -> list[Handle]:
    """``merged`` cut along ``dim`` into pieces of ``sizes``."""
    stops = list(accumulate(sizes))
    return [t.slice(merged, dim, stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]


def _of(members: Sequence[Member], name: str) -> list[Handle]:
    return [member[name] for member in members]


# Matrix products


def _are_plain(members: Sequence[Member]) -> bool:
    """Whether the products have operands of one rank. Rows of higher rank by one matrix are also known as rows of a
    matrix (matmul.py), and are merged as such."""
    return all(member["x"].rank == member["w"].rank for member in members)


@siblings("m := matmul(x, w)", shared="x", example="add(matmul(x := [2, 3], [3, 4]), matmul(x, [3, 4]))")
def matmuls_of_one_input(t: Builder, members: list[Member]) -> list[Handle] | None:
    """X A, X B = split(X [A B])"""
    if not _are_plain(members):
        return None
    dim = members[0]["m"].rank - 1
    merged = t.matmul(members[0]["x"], t.cat(_of(members, "w"), dim))
    return _parts(t, merged, [w.shape[dim] for w in _of(members, "w")], dim)


@siblings("m := matmul(x, w)", shared="w", example="add(matmul([2, 3], w := [3, 4]), matmul([2, 3], w))")
def matmuls_by_one_matrix(t: Builder, members: list[Member]) -> list[Handle | None] | None:
    """A W, B W = split([A; B] W)"""
    plain = [member for member in members if _are_plain([member])]
    if len(plain) < 2:
        return None
    dim = plain[0]["m"].rank - 2
    merged = t.matmul(t.cat(_of(plain, "x"), dim), plain[0]["w"])
    parts = _parts(t, merged, [x.shape[dim] for x in _of(plain, "x")], dim)
    results = {member["m"].id: part for member, part in zip(plain, parts, strict=True)}
    return [results.get(member["m"].id) for member in members]


@siblings("m := matmul(x, w)", example="add(matmul([2, 3], [3, 4]), matmul([2, 3], [3, 4]))", expansive=True)
def matmuls_of_one_shape(t: Builder, members: list[Member]) -> list[Handle | None] | None:
    """A U, B V = the parts of a batch of products"""
    first = members[0]
    alike = [m for m in members if m["x"].shape == first["x"].shape and m["w"].shape == first["w"].shape]
    if first["m"].rank != 2 or len(alike) < 2:
        return None
    batches = [t.cat([t.view(h, (1, *h.shape)) for h in _of(alike, name)], 0) for name in ("x", "w")]
    parts = _parts(t, t.matmul(*batches), [1] * len(alike), 0)
    results = {member["m"].id: t.view(part, first["m"].shape) for member, part in zip(alike, parts, strict=True)}
    return [results.get(member["m"].id) for member in members]


# Convolutions


@siblings("y := conv(x, w)", shared="x", example="add(conv(x := [1, 2, 5, 5], [3, 2, 3, 3]), conv(x, [3, 2, 3, 3]))")
def convolutions_of_one_input(t: Builder, members: list[Member]) -> list[Handle] | None:
    """conv(x, a), conv(x, b) = split(conv(x, [a; b]))"""
    first = members[0]
    if first["y"]["groups"] != 1 or len({w.shape[2:] for w in _of(members, "w")}) != 1:
        return None
    merged = t.like(first["y"], first["x"], t.cat(_of(members, "w"), 0))
    return _parts(t, merged, [w.shape[0] for w in _of(members, "w")], 1)


@siblings("y := conv(x, w)", shared="w", example="add(conv([1, 2, 5, 5], w := [3, 2, 3, 3]), conv([1, 2, 5, 5], w))")
def convolutions_by_one_kernel(t: Builder, members: list[Member]) -> list[Handle] | None:
    """conv(a, w), conv(b, w) = split(conv([a; b], w))"""
    first = members[0]
    if len({x.shape[1:] for x in _of(members, "x")}) != 1:
        return None
    merged = t.like(first["y"], t.cat(_of(members, "x"), 0), first["w"])
    return _parts(t, merged, [x.shape[0] for x in _of(members, "x")], 0)


# Look-ups


def _flat(t: Builder, indices: Sequence[Handle]) -> Handle:
    """All indices in one vector."""
    return t.cat([t.view(i, (i.numel,)) for i in indices], 0)


def _looked_up(t: Builder, rows: Handle, members: Sequence[Member]) -> list[Handle]:
    """The rows of each member, in its shape."""
    parts = _parts(t, rows, [i.numel for i in _of(members, "i")], 0)
    return [t.view(part, member["e"].shape) for part, member in zip(parts, members, strict=True)]


def _shifts(tables: Sequence[Handle]) -> list[int]:
    """The first row of each table after stacking."""
    return [0, *accumulate(w.shape[0] for w in tables)][:-1]


def _shifted(t: Builder, index: Handle, shift: int) -> Handle:
    return t.add(index, t.scalar(shift, index.type.dtype)) if shift else index


def _placed(t: Builder, index: Handle, shift: int, tables: Sequence[Handle], number: int) -> Handle:
    """``index`` into table ``number`` as an index into all tables, stacked. An index out of the range of its table
    stays out of range, so that the look-up still raises an error."""
    rows, all_rows = tables[number].shape[0], sum(w.shape[0] for w in tables)
    moved, known = _shifted(t, index, shift), t.interval(index)
    if known and known[0] >= 0 and known[1] < rows:
        return moved
    within = t.apply("equal", (t.apply("clamp", (index,), low=0, high=rows - 1), index))
    return t.apply("where", (within, moved, t.scalar(all_rows, index.type.dtype)))


@siblings(
    "e := embedding(w, i)",
    shared="w",
    exactness="bitwise",
    example="cat(embedding(w := [4, 3], integers(2, 5)), embedding(w, integers(1, 5)), dim=0)",
)
def lookups_in_one_table(t: Builder, members: list[Member]) -> list[Handle]:
    """embedding(w, i), embedding(w, j) = split(embedding(w, [i, j]))"""
    return _looked_up(t, t.like(members[0]["e"], members[0]["w"], _flat(t, _of(members, "i"))), members)


@siblings(
    "e := embedding(w, i)",
    exactness="bitwise",
    example="cat(embedding([4, 3], integers(2, 5)), embedding([5, 3], integers(1, 5)), dim=0)",
    refused="cat(embedding([4, 3], integers(2, 5)), embedding([4, 6], integers(2, 5)), dim=2)",
)
def lookups_in_several_tables(t: Builder, members: list[Member]) -> list[Handle] | None:
    """embedding(u, i), embedding(v, j) = split(embedding([u; v], [i, j + rows of u]))"""
    tables = _of(members, "w")
    if len({w.shape[1] for w in tables}) != 1 or len({w.id for w in tables}) == 1:
        return None
    if any(i.type.dtype != "int64" for i in _of(members, "i")):
        return None
    shifts = _shifts(tables)
    indices = [_placed(t, i, shifts[n], tables, n) for n, i in enumerate(_of(members, "i"))]
    return _looked_up(t, t.like(members[0]["e"], t.cat(tables, 0), _flat(t, indices)), members)


@siblings(
    "e := embedding(w, i)",
    shared="i",
    exactness="bitwise",
    example="cat(embedding([4, 3], i := integers(2, 5)), embedding([4, 6], i), dim=2)",
)
def lookups_of_one_index(t: Builder, members: list[Member]) -> list[Handle] | None:
    """embedding(u, i), embedding(v, i) = split(embedding([u, v], i))"""
    first, tables = members[0], _of(members, "w")
    if len({w.shape[0] for w in tables}) != 1:
        return None
    return _parts(
        t, t.like(first["e"], t.cat(tables, 1), first["i"]), [w.shape[1] for w in tables], first["e"].rank - 1
    )


@siblings(
    "e := embedding_bag(w, i, o)",
    example="cat(embedding_bag([4, 3], integers(4), integers(2, repeats=1)), "
    "embedding_bag([5, 3], integers(6), integers(2, repeats=1)), dim=0)",
    refused="cat(embedding_bag([4, 3], integers(4), integers(2, repeats=1)), "
    "embedding_bag([4, 6], integers(4), integers(2, repeats=1)), dim=1)",
)
def bags_from_several_tables(t: Builder, members: list[Member]) -> list[Handle] | None:
    """Bags of rows of u and bags of rows of v are bags of rows of [u; v], one after the other"""
    tables, indices, offsets = (_of(members, name) for name in ("w", "i", "o"))
    if len({w.shape[1] for w in tables}) != 1 or {h.type.dtype for h in (*indices, *offsets)} != {"int64"}:
        return None
    starts = [0, *accumulate(i.numel for i in indices)][:-1]
    shifts = _shifts(tables)
    index = t.cat([_placed(t, i, shifts[n], tables, n) for n, i in enumerate(indices)], 0)
    offset = t.cat([_shifted(t, o, start) for o, start in zip(offsets, starts, strict=True)], 0)
    merged = t.like(members[0]["e"], t.cat(tables, 0), index, offset)
    return _parts(t, merged, [o.numel for o in offsets], 0)


# Elementwise functions


def _side_by_side(t: Builder, members: list[Member], dim: int) -> list[Handle | None] | None:
    def across(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:dim], *shape[dim + 1 :])

    first = members[0]
    alike = [m for m in members if m["x"].type.dtype == first["x"].type.dtype and m["x"].rank == first["x"].rank]
    alike = [m for m in alike if across(m["x"].shape) == across(first["x"].shape)]
    if len(alike) < 2 or first["x"].rank <= dim:
        return None
    merged = t.like(first["y"], t.cat(_of(alike, "x"), dim))
    parts = _parts(t, merged, [x.shape[dim] for x in _of(alike, "x")], dim)
    results = {member["y"].id: part for member, part in zip(alike, parts, strict=True)}
    return [results.get(member["y"].id) for member in members]


@siblings("y := F(x)", F=pointwise(1), exactness="bitwise", example="cat(F([2, 3]), F([4, 3]), dim=0)", expansive=True)
def functions_along_first_axis(t: Builder, members: list[Member]) -> list[Handle | None] | None:
    """f(a), f(b) = split(f([a; b])) along the first axis"""
    return _side_by_side(t, members, 0)


@siblings("y := F(x)", F=pointwise(1), exactness="bitwise", example="cat(F([2, 3]), F([2, 4]), dim=1)", expansive=True)
def functions_along_second_axis(t: Builder, members: list[Member]) -> list[Handle | None] | None:
    """f(a), f(b) = split(f([a, b])) along the second axis"""
    return _side_by_side(t, members, 1)
