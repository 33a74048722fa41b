"""Siblings that share an operand become one larger operator, of which each reads its part.

A merge is no gain by itself (three projections of 128 rows: 1.00x); for few rows, where reading the weights is what
takes time, it is. The measured costs decide.
"""

from itertools import accumulate

from torch_eqsat.rules.builder import Builder, Handle
from torch_eqsat.rules.law import siblings

Member = dict[str, Handle]


def _parts(t: Builder, merged: Handle, sizes: list[int], dim: int) -> list[Handle]:
    """``merged`` cut along ``dim`` into pieces of ``sizes``."""
    stops = list(accumulate(sizes))
    return [t.slice(merged, dim, stop - size, stop) for size, stop in zip(sizes, stops, strict=True)]


@siblings("m := matmul(x, w)", shared="x", example="add(matmul(x := [2, 3], [3, 4]), matmul(x, [3, 4]))")
def matmuls_of_one_input(t: Builder, members: list[Member]) -> list[Handle]:
    """X A, X B = split(X [A B])"""
    dim = members[0]["m"].rank - 1
    merged = t.matmul(members[0]["x"], t.cat([member["w"] for member in members], dim))
    return _parts(t, merged, [member["w"].shape[dim] for member in members], dim)


@siblings("m := matmul(x, w)", shared="w", example="add(matmul([2, 3], w := [3, 4]), matmul([2, 3], w))")
def matmuls_by_one_matrix(t: Builder, members: list[Member]) -> list[Handle]:
    """A W, B W = split([A; B] W)"""
    dim = members[0]["m"].rank - 2
    merged = t.matmul(t.cat([member["x"] for member in members], dim), members[0]["w"])
    return _parts(t, merged, [member["x"].shape[dim] for member in members], dim)


@siblings("y := conv(x, w)", shared="x", example="add(conv(x := [1, 2, 5, 5], [3, 2, 3, 3]), conv(x, [3, 2, 3, 3]))")
def convolutions_of_one_input(t: Builder, members: list[Member]) -> list[Handle] | None:
    """conv(x, a), conv(x, b) = split(conv(x, [a; b]))"""
    first = members[0]
    if first["y"]["groups"] != 1 or len({member["w"].shape[2:] for member in members}) != 1:
        return None
    merged = t.like(first["y"], first["x"], t.cat([member["w"] for member in members], 0))
    return _parts(t, merged, [member["w"].shape[0] for member in members], 1)
