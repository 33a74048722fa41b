"""Pooling and upsampling.

Both act on positions, and so commute with 1x1 convolutions, which act on channels: see principles.py. Captured
upsampling is indexing by integer tensors (nearest) or a weighted sum of such (bilinear).
"""

import itertools

from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.laws.law import law
from torch_eqsat.rewrites.functions import MONOTONE
from torch_eqsat.rewrites.shapes import varies_only_along


@law(
    "p := avg_pool(add(x, c))",
    example="avg_pool(add([1, 3, 4, 4], [3, 1, 1]), kernel=[2, 2], stride=[2, 2])",
    refused="avg_pool(add([1, 3, 4, 4], [3, 1, 1]), kernel=[3, 3], stride=[1, 1], padding=[1, 1])",
    assumes={"x|c": "no_cancellation"},
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
    (n, c, height, width), s, r = x.shape, t.known(i, "repeats"), t.known(j, "repeats")
    if not s or not r or g.shape != (n, c, height * s, width * r):
        return None
    if i.shape != (height * s, 1) or j.shape not in ((width * r,), (1, width * r)):
        return None
    spread = t.view(x, (n, c, height, 1, width, 1))
    return t.view(t.expand(spread, (n, c, height, s, width, r)), g.shape)


def _phase_kernel(t: Builder, w: Handle, axis: int, s: int, padding: int, phase: int) -> tuple[Handle, int, int]:
    """The kernel along ``axis`` for the outputs s·i + phase if each row is repeated s times: taps that read copies of
    one row are summed. Also the first and the last row that it reads, relative to i."""
    rows = [(phase - padding + tap) // s for tap in range(w.shape[axis])]
    parts = []
    for row in range(rows[0], rows[-1] + 1):
        first = rows.index(row)
        parts.append(t.reduce(t.slice(w, axis, first, first + rows.count(row)), "sum", [axis]))
    return t.cat(parts, axis), rows[0], rows[-1]


@law(
    "y := conv(v := view(e := expand(u := view(x))), w)",
    example=[
        "conv(view(expand(view([1, 2, 3, 4], shape=[1, 2, 3, 1, 4, 1]), shape=[1, 2, 3, 2, 4, 1]), "
        "shape=[1, 2, 6, 4]), [3, 2, 3, 3], padding=[1, 1])",
        "conv(view(expand(view([1, 2, 3, 4], shape=[1, 2, 3, 1, 4, 1]), shape=[1, 2, 3, 2, 4, 2]), "
        "shape=[1, 2, 6, 8]), [4, 1, 3, 3], padding=[1, 1], groups=2)",
    ],
    refused="conv(view(expand(view([1, 2, 3, 4], shape=[1, 2, 3, 1, 4, 1]), shape=[1, 2, 3, 2, 4, 1]), "
    "shape=[1, 2, 6, 4]), [3, 2, 3, 3], stride=[2, 2], padding=[1, 1])",
    assumes={"x": "finite"},
)
def convolution_of_copies(
    t: Builder, y: Handle, v: Handle, e: Handle, u: Handle, x: Handle, w: Handle
) -> Handle | None:
    """A convolution of an image whose rows and columns are repeated = convolutions of the image itself, one for each
    phase of the repetition, interleaved; their kernels sum the taps that read copies of one element"""
    if x.rank != 4 or e.rank != 6 or set(y["stride"] + y["dilation"]) != {1} or max(w.shape[2:]) == 1:
        return None
    n, c, height, width = x.shape
    scales = e.shape[3], e.shape[5]
    if u.shape != (n, c, height, 1, width, 1) or v.shape != (n, c, height * scales[0], width * scales[1]):
        return None
    if any(size % s for size, s in zip(y.shape[2:], scales, strict=True)):
        return None
    counts = [size // s for size, s in zip(y.shape[2:], scales, strict=True)]
    phases = []
    for i, j in itertools.product(range(scales[0]), range(scales[1])):
        tall, top, bottom = _phase_kernel(t, w, 2, scales[0], y["padding"][0], i)
        kernel, left, right = _phase_kernel(t, tall, 3, scales[1], y["padding"][1], j)
        pads = [(0, 0), (0, 0), (-top, counts[0] + bottom - height), (-left, counts[1] + right - width)]
        if min(min(pad) for pad in pads) < 0:
            return None
        phase = t.like(y, t.pad(x, pads), kernel, padding=(0, 0))
        phases.append(t.view(phase, (n, y.shape[1], 1, *counts)))
    grid = t.view(t.cat(phases, 2), (n, y.shape[1], *scales, *counts))
    return t.view(t.permute(grid, (0, 1, 4, 2, 5, 3)), y.shape)


@law(
    "p := avg_pool(x)",
    example="avg_pool([2, 3, 4, 5], kernel=[4, 5], stride=[4, 5])",
    refused=[
        "avg_pool([2, 3, 4, 4], kernel=[2, 4], stride=[2, 4])",
        "avg_pool([2, 3, 4, 4], kernel=[4, 4], stride=[4, 4], padding=[1, 1])",
        "avg_pool([2, 3, 4, 4], kernel=[4, 4], stride=[4, 4], divisor=3)",
    ],
)
def pool_of_everything(t: Builder, p: Handle, x: Handle) -> Handle | None:
    """pool(x) = mean(x) over all positions, for a window of all of them"""
    whole = tuple(p["kernel"]) == x.shape[2:] and not any(p["padding"]) and p["divisor"] is None
    return t.reduce(x, "mean", [2, 3]) if whole else None


@law("p := max_pool(y := F(x))", F=MONOTONE, example="max_pool(F([1, 2, 4, 4]), kernel=[2, 2], stride=[2, 2])")
def max_pool_before_monotone(t: Builder, p: Handle, y: Handle, x: Handle) -> Handle:
    """pool f(x) = f(pool x) for the maximum and a function that never decreases"""
    return t.like(y, t.like(p, x))


@law(
    "p := max_pool(add(x, c))",
    example="max_pool(add([1, 3, 4, 4], [3, 1, 1]), kernel=[2, 2], stride=[2, 2], padding=[1, 1])",
    refused="max_pool(add([1, 3, 4, 4], [4]), kernel=[2, 2], stride=[2, 2])",
)
def shift_moves_out_of_max_pool(t: Builder, p: Handle, x: Handle, c: Handle) -> Handle | None:
    """max pool(x + c) = max pool(x) + c for a shift per channel"""
    fits = c.rank <= 4 and varies_only_along(c, {0, 1}, 4) and c.numel < x.numel and x.rank == 4
    return t.add(t.like(p, x), c) if fits else None
