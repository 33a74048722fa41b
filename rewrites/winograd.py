"""Winograd convolutions: fewer multiplications for a small window, along one axis at a time.

m neighbouring outputs of a window of r are the coefficients of a product of polynomials, transposed. The product is
determined by n = m + r - 1 points, so n products replace the m r products of the plain sum. For a 3x3 window, first the
rows are rewritten, then the columns of the resulting convolutions: F(2x2, 3x3) with 16 products instead of 36, F(4x4,
3x3) with 36 instead of 144. Sources: S. Winograd, Arithmetic Complexity of Computations (1980); A. Lavin and S. Gray,
Fast Algorithms for Convolutional Neural Networks (CVPR 2016), section 4.

The sums before and after the products go over all channels once, so they pay if each channel is multiplied often. The
sums of a constant kernel are computed once. The laws hold for other kernels too, but are not applied to them: a
training step of ResNet-18 took 90 ms with them and 68 ms without, because the backward of a convolution stays as it is.

Sums of inputs are rounded. In float32, the RMS error of a convolution along both axes is up to 2x that of the plain sum
at four points, 6x to 9x at six points, and 12x along three axes; the largest error is up to 14x. An input reaches all
outputs of its tile, even through weights that are zero: with rounding errors of the size of the largest input of the
tile, and as NaN if that input is not finite or near the largest float.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import prod

from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.laws.law import law

# The least number of channels per output and of outputs per channel. With fewer, the sums around the products cost more
# than the products save.
CHANNELS = 16
# The most bytes of the operands of the products. glibc returns larger blocks to the system in every call (see
# torch_eqsat.allocator), which costs more than the multiplications.
LARGEST = 32 << 20
# Inputs are summed before they are multiplied, which costs half a digit in narrow dtypes.
DTYPES = ("float32", "float64")
# The finite points; infinity is one more. The error is least with 1/2 and -2. For 256 channels of 28x28 along both
# axes, relative to the largest output, it is 2.0e-6; with 2 and -2 7.2e-6, with 1/2 and -1/2 7.0e-6, with 1/2 and 2
# 5.7e-6, and 2.3e-7 for the plain sum.
FOUR_POINTS = (Fraction(0), Fraction(1), Fraction(-1))
SIX_POINTS = (*FOUR_POINTS, Fraction(1, 2), Fraction(-2))

Matrix = tuple[tuple[float, ...], ...]


@cache
def transforms(points: tuple[Fraction, ...], window: int) -> tuple[Matrix, Matrix, Matrix]:
    """The matrices A [m, n], G [n, window] and B [n, n] of n - 1 finite ``points`` and infinity: m outputs are
    A ((G w) ∘ (B d))."""
    n = len(points) + 1
    others = [[q for q in points if q != p] for p in points]
    scales = [prod((p - q for q in rest), start=Fraction(1)) for p, rest in zip(points, others, strict=True)]
    outputs = [[p**i for p in points] + [Fraction(i == n - window)] for i in range(n - window + 1)]
    kernel = [[p**i / scale for i in range(window)] for p, scale in zip(points, scales, strict=True)]
    kernel.append([Fraction(i == window - 1) for i in range(window)])
    inputs = [[*_polynomial(rest), Fraction(0)] for rest in others] + [_polynomial(points)]
    return _matrix(outputs), _matrix(kernel), _matrix(inputs)


def _matrix(rows: Sequence[Sequence[Fraction]]) -> Matrix:
    return tuple(tuple(map(float, row)) for row in rows)


def _polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of ∏ (x - root), those of low powers first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *coefficients], [root * c for c in coefficients] + [Fraction(0)]
        coefficients = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients


@law(
    "y := conv(x, w)",
    example=[
        "conv([1, 16, 4, 5], weights(16, 16, 3, 3), padding=[1, 1])",
        "conv([2, 32, 5, 4], weights(32, 16, 1, 3), padding=[0, 1], groups=2)",
        "conv([1, 16, 7], weights(16, 16, 3))",
        "conv([1, 16, 1, 4], weights(16, 16, 3, 3), padding=[1, 1])",
        "conv([1, 16, 4], weights(16, 16, 2))",
    ],
    refused=[
        "conv([1, 16, 4, 4], weights(16, 16, 3, 3), stride=[2, 2])",
        "conv([1, 16, 6, 6], weights(16, 16, 3, 3), dilation=[2, 2])",
        "conv([1, 16, 5, 5], weights(16, 16, 5, 5), padding=[2, 2])",
        "conv([1, 8, 4, 4], weights(16, 8, 3, 3), padding=[1, 1])",
        "conv([1, 16, 4, 4], weights(8, 16, 3, 3), padding=[1, 1])",
        "conv([1, 16, 1, 1], weights(16, 16, 3, 3), padding=[1, 1])",
        "conv([1, 64, 448, 448], weights(16, 64, 3, 3), padding=[1, 1])",
        "conv([1, 16, 448, 448], weights(64, 16, 3, 3), padding=[1, 1])",
        "conv(convert([1, 16, 4, 4], dtype='bfloat16'), convert(weights(16, 16, 3, 3), dtype='bfloat16'))",
        "conv([1, 16, 4, 5], [16, 16, 3, 3], padding=[1, 1])",
    ],
    assumes={"x": "finite even no_overflow"},
)
def four_points(t: Builder, y: Handle, x: Handle, w: Handle) -> Handle | None:
    """[d₀ d₁ d₂; d₁ d₂ d₃] w = A ((G w) ∘ (B d)) with products at 0, 1, −1 and ∞"""
    return _multiplied(t, y, x, w, FOUR_POINTS)


@law(
    "y := conv(x, w)",
    example=[
        "conv([1, 16, 4, 9], weights(16, 16, 3, 3), padding=[1, 1])",
        "conv([2, 32, 5, 8], weights(32, 16, 1, 3), padding=[0, 1], groups=2)",
        "conv([1, 16, 10], weights(16, 16, 3))",
        "conv([1, 16, 4, 5], weights(16, 16, 5, 5), padding=[2, 2])",
    ],
    refused=[
        "conv([1, 16, 5, 5], weights(16, 16, 3, 3), stride=[2, 2])",
        "conv([1, 16, 9, 9], weights(16, 16, 3, 3), dilation=[2, 2])",
        "conv([1, 16, 2, 2], weights(16, 16, 3, 3), padding=[1, 1])",
        "conv([1, 8, 4, 4], weights(16, 8, 3, 3), padding=[1, 1])",
        "conv([1, 64, 448, 448], weights(16, 64, 3, 3), padding=[1, 1])",
    ],
    assumes={"x": "finite even no_overflow"},
)
def six_points(t: Builder, y: Handle, x: Handle, w: Handle) -> Handle | None:
    """As four_points, with products at 0, 1, −1, 1/2, −2 and ∞ for four outputs of a window of three, two of five"""
    return _multiplied(t, y, x, w, SIX_POINTS)


def _multiplied(t: Builder, y: Handle, x: Handle, w: Handle, points: tuple[Fraction, ...]) -> Handle | None:
    """``y`` with one axis rewritten: the first axis whose window has step 1 and needs fewer products this way. None if
    there is no such axis, or if the operands of the products would be too large."""
    groups, padding, n = y["groups"], y["padding"], len(points) + 1
    if x.type.dtype not in DTYPES or not x.type.numel or min(w.shape[1], w.shape[0] // groups) < CHANNELS:
        return None
    if not t.is_constant(w):
        return None
    for i, window in enumerate(w.shape[2:]):
        axis, tile = i + 2, n + 1 - window
        tiles = -(-y.shape[axis] // max(tile, 1))
        if tile > 1 and y["stride"][i] == y["dilation"][i] == 1 and n * tiles < window * y.shape[axis]:
            break
    else:
        return None
    if n * tiles * max(x.type.bytes // x.shape[axis], y.type.bytes // y.shape[axis]) >= LARGEST:
        return None
    of_outputs, of_kernel, of_inputs = transforms(points, window)
    # All axes are padded at once, so that the next one needs no padding.
    pads = [(0, 0), (0, 0), *((size, size) for size in padding)]
    pads[axis] = (padding[i], tile * tiles + window - 1 - x.shape[axis] - padding[i])
    products = t.like(
        y,
        t.filter_bank(t.pad(x, pads), of_inputs, dim=axis, into=1, step=tile),
        t.filter_bank(w, of_kernel, dim=axis, into=0),
        padding=(0,) * len(padding),
        groups=n * groups,
    )
    before, after = products.shape[:axis], products.shape[axis + 1 :]
    parts = t.view(products, (*before, tiles, 1, *after))
    outputs = t.filter_bank(parts, of_outputs, dim=1, into=axis + 1, dilation=y.shape[1])
    return t.slice(t.view(outputs, (*y.shape[:axis], tiles * tile, *after)), axis, 0, y.shape[axis])
