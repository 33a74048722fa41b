"""Views and permutations: they compose, and numbers move through them.

No law moves elementwise work of whole tensors through views, because Inductor fuses it either way.
"""

import math

from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.laws.law import law
from torch_eqsat.laws.pattern import Place
from torch_eqsat.rewrites.shapes import aligned, slice_before_view


@law(
    "v := view(view(x))",
    normalises=True,
    exactness="bitwise",
    example=["view(view([2, 6], shape=[12]), shape=[3, 4])", "view(view([2, 6], shape=[12]), shape=[2, 6])"],
)
def view_of_view(t: Builder, v: Handle, x: Handle) -> Handle:
    """view(view(x)) = view(x)"""
    return t.view(x, v.shape)


@law(
    "v := view(y := F(x, c))",
    F=[Place("add", 2), Place("mul", 2)],
    exactness="bitwise",
    example=["view(F([6, 4], [4]), shape=[2, 3, 4])", "view(F([6, 4], [1, 4]), shape=[2, 3, 4])"],
    refused=[
        "view(F([6, 4], [6, 1]), shape=[2, 3, 4])",
        "view(F([6, 4], [4]), shape=[6, 2, 2])",
        "view(F([2, 3, 4], [4]), shape=[6, 4])",
        "view(F(2.0, 3.0), shape=[1, 1])",
    ],
)
def split_rows_with_operand_of_columns(t: Builder, v: Handle, y: Handle, x: Handle, c: Handle) -> Handle | None:
    """view(f(x, c)) = f(view(x), c) where the view splits axes along which c does not vary"""
    if y.rank == 0 or v.rank <= y.rank or v.shape[-1] != y.shape[-1] or x.shape != y.shape or c.rank > y.rank:
        return None
    if aligned(c.shape, y.rank)[:-1] != (1,) * (y.rank - 1) or c.numel != y.shape[-1]:
        return None
    return t.like(y, t.view(x, v.shape), t.view(c, (c.numel,)))


@law(
    "p := permute(q := permute(x))",
    normalises=True,
    exactness="bitwise",
    example="permute(permute([2, 3, 4], dims=[1, 2, 0]), dims=[1, 2, 0])",
)
def permute_of_permute(t: Builder, p: Handle, q: Handle, x: Handle) -> Handle:
    """permute(permute(x)) = permute(x)"""
    return t.permute(x, [q["dims"][d] for d in p["dims"]])


@law(
    "p := permute(x)",
    exactness="bitwise",
    example="permute([1, 5, 1, 3], dims=[1, 0, 2, 3])",
    refused="permute([1, 5, 3], dims=[0, 2, 1])",
)
def permute_of_unit_axes(t: Builder, p: Handle, x: Handle) -> Handle | None:
    """permute(x) = view(x) when only axes of size 1 change places"""
    moved = [d for d in p["dims"] if x.shape[d] != 1]
    return t.view(x, p.shape) if moved == sorted(moved) else None


@law(
    "v := view(s := slice(x))",
    exactness="bitwise",
    example="view(slice([1, 16, 4], dim=1, start=3, stop=4), shape=[1, 4])",
)
def view_before_slice(t: Builder, v: Handle, s: Handle, x: Handle) -> Handle | None:
    """view(slice(x)) = slice(view(x))"""
    axis, start, stop = s["dim"], s["start"], s["stop"]
    outer, width = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    for dim in range(v.rank):
        inner = math.prod(v.shape[dim + 1 :])
        total = x.shape[axis] * width
        if math.prod(v.shape[:dim]) != outer or total % inner or start * width % inner or stop * width % inner:
            continue
        shape = (*v.shape[:dim], total // inner, *v.shape[dim + 1 :])
        first, last = start * width // inner, stop * width // inner
        if slice_before_view(x.shape, shape, dim, first, last) == (axis, start, stop):
            return t.slice(t.view(x, shape), dim, first, last)
    return None
