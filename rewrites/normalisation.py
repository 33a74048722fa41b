"""Normalisation, captured in decomposed form: means, variances, roots, scales and shifts.

A batch norm in inference is a factor and a shift per channel: elementwise.py gathers them, and laws of convolution.py
move them into kernels. The affine part of layer, group and RMS norms folds into the following matrix product
(matmul.py). This module has the rest: shifts and scales under means and variances.
"""

import math

from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.laws.law import law
from torch_eqsat.laws.pattern import Place
from torch_eqsat.rewrites.shapes import narrow, varies_only_along


def _is_variance(r: Handle) -> bool:
    return str(r["kind"]).startswith("var")


def _is_fixed_along(c: Handle, r: Handle, x: Handle) -> bool:
    """Whether ``c``, one of two operands that broadcast to x's shape, does not vary along the reduced axes."""
    return varies_only_along(c, set(range(x.rank)) - set(r["dims"]), x.rank) and c.numel < x.numel


@law(
    "r := reduce(p := add(x, c))",
    example="reduce(add([4, 3], [3]), kind='mean', dims=[0])",
    refused=["reduce(add([4, 3], [3]), kind='sum', dims=[0])", "reduce(add([4, 3], [4, 1]), kind='mean', dims=[0])"],
    assumes={"x|c": "no_cancellation"},
)
def shift_moves_out_of_mean(t: Builder, r: Handle, p: Handle, x: Handle, c: Handle) -> Handle | None:
    """mean(x + c) = mean(x) + c for a shift that does not vary along the mean"""
    if r["kind"] != "mean" or x.shape != p.shape or not _is_fixed_along(c, r, x):
        return None
    return t.add(t.like(r, x), c)


@law(
    "r := reduce(p := add(x, c))",
    example="reduce(add([4, 3], [3]), kind='sum', dims=[0])",
    refused=["reduce(add([4, 3], [3]), kind='mean', dims=[0])", "reduce(add([4, 3], [4, 1]), kind='sum', dims=[0])"],
    assumes={"x|c": "no_cancellation"},
)
def shift_moves_out_of_sum(t: Builder, r: Handle, p: Handle, x: Handle, c: Handle) -> Handle | None:
    """Σ (x + c) = Σ x + n · c for a shift that does not vary along the sum"""
    if r["kind"] != "sum" or x.shape != p.shape or not _is_fixed_along(c, r, x) or narrow(x):
        return None
    return t.add(t.like(r, x), t.mul(c, t.scalar(x.numel / r.numel, c.type.dtype)))


@law(
    "r := reduce(p := add(x, c))",
    example="reduce(add([4, 3], [4, 1]), kind='var0.0', dims=[1])",
    refused="reduce(add([4, 3], [3]), kind='var0.0', dims=[1])",
    assumes={"c": "no_mask"},
)
def variance_of_shifted(t: Builder, r: Handle, p: Handle, x: Handle, c: Handle) -> Handle | None:
    """var(x + c) = var(x) for a shift that does not vary along the variance"""
    return t.like(r, x) if _is_variance(r) and x.shape == p.shape and _is_fixed_along(c, r, x) else None


@law(
    "r := reduce(p := mul(x, c))",
    example="reduce(mul([4, 3], [4, 1]), kind='var0.0', dims=[1])",
    refused="reduce(mul([4, 3], [3]), kind='var0.0', dims=[1])",
    assumes={"x": "finite", "c": "no_overflow"},
)
def variance_of_scaled(t: Builder, r: Handle, p: Handle, x: Handle, c: Handle) -> Handle | None:
    """var(c · x) = c² · var(x) for a factor that does not vary along the variance"""
    if not _is_variance(r) or x.shape != p.shape or not _is_fixed_along(c, r, x) or narrow(x):
        return None
    return t.mul(t.like(r, x), t.mul(c, c))


@law(
    "r := reduce(x)",
    exactness="approximates",
    example="reduce([4, 3], kind='var0.0', dims=[1])",
    refused="reduce([4, 3], kind='var1.0', dims=[1])",
    expansive=True,
    assumes={"x": "no_cancellation no_overflow"},
)
def variance_by_moments(t: Builder, r: Handle, x: Handle) -> Handle | None:
    """var(x) = mean(x²) − mean(x)²"""
    if r["kind"] != "var0.0":
        return None
    mean = t.like(r, x, kind="mean")
    return t.minus(t.like(r, t.mul(x, x), kind="mean"), t.mul(mean, mean))


@law(
    "y := F(mul(x, s := scalar()))",
    F=[Place("sqrt", 1), Place("rsqrt", 1)],
    example="F(mul([4, 3], 4.0))",
    refused=["F(mul([4, 3], -4.0))", "F(mul([4, 3], 0.0))"],
)
def root_of_scaled(t: Builder, y: Handle, x: Handle, s: Handle) -> Handle | None:
    """√(s · x) = √s · √x for a number s > 0, and so for the reciprocal root"""
    if not 1e-6 < s["value"] < 1e6 or x.rank == 0 or narrow(x):
        return None
    root = math.sqrt(s["value"])
    return t.mul(t.like(y, x), t.scalar(root if y.op == "sqrt" else 1 / root, x.type.dtype))
