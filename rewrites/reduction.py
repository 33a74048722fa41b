"""Sums, means, extrema: reductions of reductions, of views, of functions and of products.

principles.py has the laws that linear reductions commute with maps on other axes and that factors and sums pass through
them; normalisation.py has the laws of shifts under means and variances.
"""

import math

from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.laws.law import law
from torch_eqsat.rewrites.functions import MONOTONE
from torch_eqsat.rewrites.shapes import narrow, varies_only_along

EXTREMA = ("amax", "amin")
NESTING = ("sum", "mean", *EXTREMA)


@law(
    "r := reduce(q := reduce(x))",
    normalises=True,
    example=["reduce(reduce([4, 3, 2], kind='mean', dims=[0]), kind='mean', dims=[2])"],
    refused="reduce(reduce([4, 3, 2], kind='sum', dims=[0]), kind='mean', dims=[2])",
)
def reduction_of_reduction(t: Builder, r: Handle, q: Handle, x: Handle) -> Handle | None:
    """Σ Σ x = Σ x over the axes of both, and so for means and extrema"""
    if r["kind"] != q["kind"] or r["kind"] not in NESTING:
        return None
    return t.reduce(x, r["kind"], sorted({*r["dims"], *q["dims"]}))


@law(
    "r := reduce(x)",
    normalises=True,
    example="reduce([4, 1, 2], kind='sum', dims=[1])",
    refused=["reduce([4, 3, 2], kind='sum', dims=[1])", "reduce([4, 1, 2], kind='var0.0', dims=[1])"],
)
def reduction_of_one(t: Builder, r: Handle, x: Handle) -> Handle | None:
    """Σ x = x over axes of size 1, and so for means and extrema"""
    return x if r["kind"] in NESTING and r.shape == x.shape else None


@law(
    "r := reduce(p := permute(x))",
    example="reduce(permute([2, 3, 4], dims=[2, 0, 1]), kind='sum', dims=[1])",
)
def reduction_through_permute(t: Builder, r: Handle, p: Handle, x: Handle) -> Handle:
    """Σ permute(x) = permute(Σ x)"""
    return t.permute(t.like(r, x, dims=tuple(sorted(p["dims"][d] for d in r["dims"]))), p["dims"])


@law(
    "r := reduce(v := view(x))",
    example=[
        "reduce(view([2, 3, 4, 5], shape=[2, 3, 20]), kind='mean', dims=[2])",
        "reduce(view([6, 20], shape=[1, 6, 20]), kind='sum', dims=[1])",
    ],
    refused="reduce(view([6, 4], shape=[4, 6]), kind='sum', dims=[1])",
)
def reduction_through_view(t: Builder, r: Handle, v: Handle, x: Handle) -> Handle | None:
    """Σ view(x) = view(Σ x) where the view joins or splits axes that are all summed over, or none of them"""
    dims = _axes_before_view(x.shape, v.shape, r["dims"])
    return None if dims is None or not dims else t.view(t.like(r, x, dims=dims), r.shape)


def _axes_before_view(
    source: tuple[int, ...], target: tuple[int, ...], dims: tuple[int, ...]
) -> tuple[int, ...] | None:
    """The axes of ``source`` with the elements of the axes ``dims`` of ``target``; None if an axis also has others."""
    found: list[int] = []
    i = j = 0
    while i < len(source) or j < len(target):
        first, second = [i], [j]
        left = source[i] if i < len(source) else 1
        right = target[j] if j < len(target) else 1
        while left != right:
            if left < right:
                first.append(first[-1] + 1)
                left *= source[first[-1]]
            else:
                second.append(second[-1] + 1)
                right *= target[second[-1]]
        group = [a for a in first if a < len(source)]
        reduced = {axis in dims for axis in second if axis < len(target) and target[axis] != 1}
        if len(reduced) > 1:
            return None
        if reduced == {True}:
            found += [a for a in group if source[a] != 1]
        i, j = first[-1] + 1, second[-1] + 1
    return tuple(found)


@law(
    "r := reduce(e := expand(x))",
    example=[
        "reduce(expand([1, 3], shape=[4, 3]), kind='sum', dims=[0])",
        "reduce(expand([1, 3], shape=[4, 3]), kind='amax', dims=[0])",
    ],
    refused="reduce(expand([1, 3], shape=[4, 3]), kind='sum', dims=[1])",
)
def reduction_of_copies(t: Builder, r: Handle, e: Handle, x: Handle) -> Handle | None:
    """Σ of n copies of x = n · x, their mean and extrema are x"""
    if x.rank != e.rank or any(x.shape[d] != 1 for d in r["dims"]) or r.shape != x.shape:
        return None
    if r["kind"] == "sum" and not narrow(x):
        return t.mul(x, t.scalar(float(e.numel // x.numel), x.type.dtype))
    return x if r["kind"] in ("mean", *EXTREMA) else None


@law(
    "r := reduce(p := pad(x))",
    example="reduce(pad([4, 3], pads=[[1, 2], [0, 0]]), kind='sum', dims=[0])",
    refused="reduce(pad([4, 3], pads=[[1, 2], [0, 0]]), kind='mean', dims=[0])",
)
def sum_of_padded(t: Builder, r: Handle, p: Handle, x: Handle) -> Handle | None:
    """Σ pad(x) = Σ x where only summed axes are padded"""
    padded = {axis for axis, pad in enumerate(p["pads"]) if any(pad)}
    return t.like(r, x) if r["kind"] == "sum" and padded <= set(r["dims"]) else None


@law(
    "r := reduce(x)",
    example="reduce([4, 3], kind='mean', dims=[0])",
    refused="reduce([4, 3], kind='sum', dims=[0])",
    expansive=True,
)
def mean_is_scaled_sum(t: Builder, r: Handle, x: Handle) -> Handle | None:
    """mean(x) = Σ x / n"""
    if r["kind"] != "mean" or narrow(x):
        return None
    return t.mul(t.like(r, x, kind="sum"), t.scalar(r.numel / x.numel, x.type.dtype))


# Extrema


@law(
    "r := reduce(y := F(x))",
    F=MONOTONE,
    example="reduce(F([4, 3]), kind='amax', dims=[1])",
    refused="reduce(F([4, 3]), kind='sum', dims=[1])",
)
def extremum_before_monotone(t: Builder, r: Handle, y: Handle, x: Handle) -> Handle | None:
    """max f(x) = f(max x) for a function that never decreases"""
    return t.like(y, t.like(r, x)) if r["kind"] in EXTREMA else None


@law(
    "r := reduce(p := add(x, c))",
    example="reduce(add([4, 3], [4, 1]), kind='amax', dims=[1])",
    refused="reduce(add([4, 3], [3]), kind='amax', dims=[1])",
)
def shift_moves_out_of_extremum(t: Builder, r: Handle, p: Handle, x: Handle, c: Handle) -> Handle | None:
    """max(x + c) = max(x) + c for a shift that does not vary along the maximum"""
    others = set(range(p.rank)) - set(r["dims"])
    if r["kind"] not in EXTREMA or x.shape != p.shape or not varies_only_along(c, others, p.rank):
        return None
    return t.add(t.like(r, x), c) if c.numel < x.numel else None


@law(
    "r := reduce(p := mul(x, s := scalar()))",
    exactness="bitwise",
    example=["reduce(mul([4, 3], 2.0), kind='amax', dims=[1])", "reduce(mul([4, 3], -2.0), kind='amax', dims=[1])"],
    refused="reduce(mul([4, 3], 0.0), kind='amax', dims=[1])",
)
def number_moves_out_of_extremum(t: Builder, r: Handle, p: Handle, x: Handle, s: Handle) -> Handle | None:
    """max(s · x) = s · max(x) for a number s > 0, s · min(x) for s < 0"""
    if r["kind"] not in EXTREMA or not 0 < abs(s["value"]) < math.inf or x.rank == 0:
        return None
    turned = {"amax": "amin", "amin": "amax"}[r["kind"]]
    return t.mul(t.like(r, x, kind=r["kind"] if s["value"] > 0 else turned), s)


# Sums of products


@law(
    "r := reduce(m := matmul(a, b))",
    example="reduce(matmul([2, 4, 3], [2, 3, 5]), kind='sum', dims=[1, 2])",
    refused="reduce(matmul([2, 4, 3], [2, 3, 5]), kind='sum', dims=[0, 1, 2])",
    assumes={"a": "finite"},
)
def sum_of_product(t: Builder, r: Handle, m: Handle, a: Handle, b: Handle) -> Handle | None:
    """Σ over rows and columns of A B = (Σ over rows of A) (Σ over columns of B)"""
    rows, columns = m.rank - 2, m.rank - 1
    if r["kind"] != "sum" or r["dims"] != (rows, columns) or narrow(a):
        return None
    return t.matmul(t.reduce(a, "sum", [rows]), t.reduce(b, "sum", [b.rank - 1]))


@law(
    "r := reduce(p := mul(x, y))",
    example="reduce(mul([4, 3], [3]), kind='sum', dims=[1])",
    refused=["reduce(mul([4, 3], [4, 1]), kind='sum', dims=[1])", "reduce(mul([4, 3], [3]), kind='sum', dims=[0])"],
    expansive=True,
)
def weighted_sum_is_product(t: Builder, r: Handle, p: Handle, x: Handle, y: Handle) -> Handle | None:
    """Σ over columns of X · y = X y for a vector y"""
    columns = p.shape[-1] if p.rank == 2 else 0
    if r["kind"] != "sum" or r["dims"] != (1,) or x.shape != p.shape or y.shape not in ((columns,), (1, columns)):
        return None
    return t.matmul(x, t.view(y, (columns, 1)))
