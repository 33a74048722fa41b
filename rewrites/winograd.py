"""Fewer multiplications for a window of three: Winograd's F(2, 3), along one axis at a time.

Two neighbouring outputs of a window of three need four products where the plain sum takes six. Of a 3x3 window first
the rows are rewritten, then the columns of what that leaves, which is F(2x2, 3x3): 16 products in place of 36. Source:
S. Winograd, Arithmetic Complexity of Computations (1980); A. Lavin and S. Gray, Fast Algorithms for Convolutional
Neural Networks (CVPR 2016), section 4.1.

The additions before and after are of all channels, once each, and so pay where each channel is multiplied often. With a
1x1 convolution before it, 512 channels of 28 x 28 take 9.8 ms in place of 15.1, 128 channels 0.66 in place of 1.05 (AMD
EPYC, family 26, frozen). Both outputs read what they read before and nothing else; in float32 the error halves.
"""

from __future__ import annotations

from torch_eqsat.rules.builder import Builder, Handle
from torch_eqsat.rules.law import law

# Channels that each output has to sum over: with fewer, the additions cost more than the multiplications save.
CHANNELS = 16
# Bytes of an image. Sums and products of the first axis are twice as large each, of both axes four times, and memory
# that an allocator gives back and takes anew in every call costs more than multiplications: with 8 MiB here a VAE's
# decoder took 45 ms where freed memory was kept and 53 to 62 where glibc returned it, and 48 unchanged.
LARGEST = 4 << 20
DTYPES = ("float32", "float64")
"""Sums of inputs are rounded before they are multiplied: in narrow dtypes that costs half a digit."""


def _axis(y: Handle, w: Handle) -> int | None:
    """The first axis with a window of three, a step at a time."""
    for i, (size, stride, dilation) in enumerate(zip(w.shape[2:], y["stride"], y["dilation"], strict=True)):
        if size == 3 and stride == dilation == 1:
            return i + 2
    return None


def _phases(t: Builder, x: Handle, axis: int) -> list[Handle]:
    """The even and the odd positions of ``x`` along ``axis``."""
    before, half, after = x.shape[:axis], x.shape[axis] // 2, x.shape[axis + 1 :]
    pairs = t.view(x, (*before, half, 2, *after))
    return [t.view(t.slice(pairs, axis + 1, i, i + 1), (*before, half, *after)) for i in (0, 1)]


def _transformed_kernel(t: Builder, w: Handle, axis: int) -> Handle:
    """[w₀; (w₀ + w₁ + w₂) / 2; (w₀ − w₁ + w₂) / 2; w₂]"""
    halves = t.mul(w, t.scalar(0.5, w.type.dtype))
    low, middle, high = (t.slice(halves, axis, i, i + 1) for i in range(3))
    ends = t.add(low, high)
    first, last = t.slice(w, axis, 0, 1), t.slice(w, axis, 2, 3)
    return t.cat([first, t.add(ends, middle), t.minus(ends, middle), last], 0)


@law(
    "y := conv(x, w)",
    example=[
        "conv([1, 16, 4, 5], [16, 16, 3, 3], padding=[1, 1])",
        "conv([2, 32, 5, 4], [32, 16, 1, 3], padding=[0, 1], groups=2)",
        "conv([1, 16, 7], [16, 16, 3])",
    ],
    refused=[
        "conv([1, 16, 4, 4], [16, 16, 3, 3], stride=[2, 2])",
        "conv([1, 16, 4, 4], [16, 1, 3, 3], padding=[1, 1], groups=16)",
        "conv([1, 16, 2, 4], [16, 16, 3, 3], padding=[1, 1])",
        "conv([1, 64, 224, 224], [16, 64, 3, 3], padding=[1, 1])",
    ],
)
def window_of_three(t: Builder, y: Handle, x: Handle, w: Handle) -> Handle | None:
    """[d₀ d₁ d₂; d₁ d₂ d₃] w = [m₀ + m₁ + m₂; m₁ − m₂ + m₃] with m = (d₀ − d₂, d₁ + d₂, d₂ − d₁, d₃ − d₁) · w'"""
    axis, groups = _axis(y, w), y["groups"]
    if axis is None or x.type.dtype not in DTYPES or min(w.shape[1], w.shape[0] // groups) < CHANNELS:
        return None
    if max(x.type.bytes, y.type.bytes) >= LARGEST:
        return None
    size = y.shape[axis]
    half, padding = (size + 1) // 2, y["padding"][axis - 2]
    if half < 2:
        return None
    pads = [(0, 0)] * x.rank
    pads[axis] = (padding, padding + size % 2)
    even, odd = _phases(t, t.pad(x, pads), axis)
    inputs = [t.slice(phase, axis, i, i + half) for i in (0, 1) for phase in (even, odd)]
    d0, d1, d2, d3 = inputs
    sums = [t.minus(d0, d2), t.add(d1, d2), t.minus(d2, d1), t.minus(d3, d1)]
    paddings = tuple(0 if i == axis - 2 else n for i, n in enumerate(y["padding"]))
    products = t.like(y, t.cat(sums, 1), _transformed_kernel(t, w, axis), padding=paddings, groups=4 * groups)
    return _outputs(t, products, axis, y)


def _outputs(t: Builder, products: Handle, axis: int, y: Handle) -> Handle:
    """The outputs that the four products make, those at even and at odd positions side by side."""
    channels = y.shape[1]
    m = [t.slice(products, 1, i * channels, (i + 1) * channels) for i in range(4)]
    pair = [t.add(t.add(m[0], m[1]), m[2]), t.add(t.minus(m[1], m[2]), m[3])]
    shape = pair[0].shape
    spread = [t.view(z, (*shape[: axis + 1], 1, *shape[axis + 1 :])) for z in pair]
    both = t.view(t.cat(spread, axis + 1), (*shape[:axis], 2 * shape[axis], *shape[axis + 1 :]))
    return t.slice(both, axis, 0, y.shape[axis])
