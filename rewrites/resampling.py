"""Pooling and upsampling work on positions, 1x1 convolutions on channels: maps on disjoint axes commute.

Upsampling arrives as indexing by integer tensors (nearest) or as a weighted sum of such (bilinear).
"""

from torch_eqsat.rewrites.shapes import is_pointwise_convolution, varies_only_along

from torch_eqsat.rules.builder import Builder, Handle
from torch_eqsat.rules.law import law, pointwise


@law(
    "p := avg_pool(add(x, c))",
    example="avg_pool(add([1, 3, 4, 4], [3, 1, 1]), kernel=[2, 2], stride=[2, 2])",
    refused="avg_pool(add([1, 3, 4, 4], [3, 1, 1]), kernel=[3, 3], stride=[1, 1], padding=[1, 1])",
)
def shift_moves_out_of_pool(t: Builder, p: Handle, x: Handle, c: Handle) -> Handle | None:
    """pool(x + c) = pool(x) + c for a shift per channel"""
    counts_padding = any(p["padding"]) and p["count_include_pad"]
    if counts_padding or p["divisor"] is not None or not varies_only_along(c, {0, 1}, 4) or c.numel == x.numel:
        return None
    return t.add(t.like(p, x), c)


@law(
    "g := index(x, i, j)",
    exactness="bitwise",
    example="index([1, 3, 4, 5], integers(8, 1, repeats=2), integers(10, repeats=2), first=2)",
    refused=[
        "index([1, 3, 4, 5], integers(8, 1), integers(10, repeats=2), first=2)",
        "index([1, 3, 4, 5], integers(4, 1, repeats=2), integers(10, repeats=2), first=2)",
        "index([1, 3, 4, 5], integers(8, repeats=2), integers(8, repeats=2), first=2)",
    ],
)
def upsampling_is_repetition(t: Builder, g: Handle, x: Handle, i: Handle, j: Handle) -> Handle | None:
    """x[⌊k/s⌋, ⌊l/r⌋] = view(expand(view(x))) when all of x is read: a gather needs an address for each element"""
    if g["first"] != 2 or x.rank != 4 or g.rank != 4:
        return None
    (n, c, height, width), s, r = x.shape, t.repeats(i), t.repeats(j)
    if not s or not r or g.shape != (n, c, height * s, width * r):
        return None
    if i.shape != (height * s, 1) or j.shape not in ((width * r,), (1, width * r)):
        return None
    spread = t.view(x, (n, c, height, 1, width, 1))
    return t.view(t.expand(spread, (n, c, height, s, width, r)), g.shape)
