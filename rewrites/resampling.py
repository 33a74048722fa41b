"""Pooling and upsampling.

Both work on positions, and so commute with 1x1 convolutions, which work on channels: see principles.py. Upsampling
arrives as indexing by integer tensors (nearest) or as a weighted sum of such (bilinear).
"""

from torch_eqsat.rewrites.shapes import varies_only_along

from torch_eqsat.rules.builder import Builder, Handle
from torch_eqsat.rules.law import law, pointwise

MONOTONE = pointwise(1, trait="monotone", but=("log", "sqrt"))  # outside of their domain these give NaN


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


def _taps(k: int, s: int, padding: int, phase: int) -> list[tuple[int, int, int]]:
    """Which kernel positions ``first:last`` read the same element of the unrepeated input, and its offset.

    Output s·i + phase reads repeated positions s·i + phase − padding + j for j < k, which are copies of element
    i + ⌊(phase − padding + j) / s⌋.

    >>> _taps(3, 2, 1, 0)
    [(0, 1, -1), (1, 3, 0)]
    """
    offsets = [(phase - padding + j) // s for j in range(k)]
    return [(offsets.index(o), k - offsets[::-1].index(o), o) for o in sorted(set(offsets))]


def _phase(t: Builder, y: Handle, x: Handle, w: Handle, axis: int, s: int, phase: int) -> Handle:
    """Every s-th output along ``axis``, from ``phase`` on, out of the unrepeated ``x``."""
    padding, spatial = y["padding"][axis - 2], axis - 2
    taps = _taps(w.shape[axis], s, padding, phase)
    kernel = t.cat([t.reduce(t.slice(w, axis, first, last), "sum", [axis]) for first, last, _ in taps], axis)
    low, size = taps[0][2], x.shape[axis]
    high = taps[-1][2]
    pads = [(0, 0)] * x.rank
    pads[axis] = (max(0, -low), max(0, high))
    padded = t.pad(x, pads)
    start = low + pads[axis][0]
    read = t.slice(padded, axis, start, start + size + high - low)
    return t.like(y, read, kernel, padding=tuple(0 if i == spatial else p for i, p in enumerate(y["padding"])))


@law(
    "y := conv(v := view(e := expand(u := view(x))), w)",
    example=[
        "conv(view(expand(view([1, 2, 3, 4], shape=[1, 2, 3, 1, 4, 1]), shape=[1, 2, 3, 2, 4, 1]), shape=[1, 2, 6, 4]), "
        "[3, 2, 3, 3], padding=[1, 1])",
        "conv(view(expand(view([1, 2, 3, 4], shape=[1, 2, 3, 1, 4, 1]), shape=[1, 2, 3, 2, 4, 2]), shape=[1, 2, 6, 8]), "
        "[3, 2, 3, 3], padding=[1, 1])",
    ],
    refused="conv(view(expand(view([1, 2, 3, 4], shape=[1, 2, 3, 1, 4, 1]), shape=[1, 2, 3, 2, 4, 1]), "
    "shape=[1, 2, 6, 4]), [3, 2, 3, 3], stride=[2, 2])",
)
def convolution_of_copies(
    t: Builder, y: Handle, v: Handle, e: Handle, u: Handle, x: Handle, w: Handle
) -> Handle | None:
    """A convolution of rows that are repeated s times = s convolutions of the rows themselves, one for each phase, whose
    kernels sum the taps that read copies of one row"""
    if v.rank != 4 or x.rank != 4 or u.rank != 6 or e.rank != 6 or y["groups"] != 1:
        return None
    n, c, height, s, width, r = e.shape
    if u.shape != (n, c, height, 1, width, 1) or x.shape != (n, c, height, width):
        return None
    if v.shape != (n, c, height * s, width * r):
        return None
    axis, times = (2, s) if s > 1 else (3, r)
    if any(d != 1 for d in y["dilation"] + y["stride"]) or times == 1 or w.shape[axis] == 1:
        return None
    if y.shape[2:] != v.shape[2:]:
        return None
    rest = (
        x
        if r == 1 or s == 1
        else t.view(
            t.expand(t.view(x, (n, c, height, 1, width, 1)), (n, c, height, 1, width, r)), (n, c, height, width * r)
        )
    )
    phases = [_phase(t, y, rest, w, axis, times, phase) for phase in range(times)]
    apart = (*phases[0].shape[: axis + 1], 1, *phases[0].shape[axis + 1 :])
    return t.view(t.cat([t.view(p, apart) for p in phases], axis + 1), y.shape)


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
