"""Half precision: factors and shifts of constants pass conversions.

A batch norm of a half-precision image is computed in single precision and rounded at the end. Its factor and shift are
constants, so they may be applied to the rounded image: what is derived from constants is formed in single precision and
rounded once (torch_eqsat/graph/rounding.py), and so is a sum or product with them that nothing takes in.
"""

from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.ir.types import HALF
from torch_eqsat.laws.law import law
from torch_eqsat.rewrites.shapes import narrow, small

_WIDER = {"bfloat16": ("float32", "float64"), "float16": ("float32", "float64"), "float32": ("float64",)}
"""Dtypes that hold every number of another one."""


@law(
    "c := convert(w := convert(x))",
    exactness="bitwise",
    normalises=True,
    example="convert(convert(halves(4, 3), dtype='float32'), dtype='bfloat16')",
    refused=[
        "convert(halves(4, 3), dtype='float32')",
        "convert(convert(halves(4, 3), dtype='float16'), dtype='bfloat16')",
    ],
)
def rounding_of_widened(t: Builder, c: Handle, w: Handle, x: Handle) -> Handle | None:
    """convert(convert(x)) = x for a wider dtype and back"""
    return x if c.type == x.type and w.type.dtype in _WIDER.get(x.type.dtype, ()) else None


def _rounds(c: Handle, w: Handle, x: Handle) -> bool:
    """Whether ``c`` rounds to the half precision from which ``w`` widens ``x``."""
    return c.type.dtype == x.type.dtype in HALF and w.type.dtype in _WIDER[x.type.dtype]


@law(
    "c := convert(mul(w := convert(x), s))",
    example="convert(mul(convert(halves(4, 3), dtype='float32'), weights(3)), dtype='bfloat16')",
    refused="convert(mul(convert(halves(4, 3), dtype='float32'), [3]), dtype='bfloat16')",
)
def factor_of_widened(t: Builder, c: Handle, w: Handle, x: Handle, s: Handle) -> Handle | None:
    """round(widen(x) · s) = x · round(s) for a small constant s"""
    return t.mul(x, t.like(c, s)) if _rounds(c, w, x) and t.is_constant(s) and small(x, s) else None


@law(
    "c := convert(add(w := convert(x), s))",
    example="convert(add(convert(halves(4, 3), dtype='float32'), weights(3)), dtype='bfloat16')",
    refused="convert(add(convert(halves(4, 3), dtype='float32'), [3]), dtype='bfloat16')",
    assumes={"x|s": "no_cancellation"},
)
def shift_of_widened(t: Builder, c: Handle, w: Handle, x: Handle, s: Handle) -> Handle | None:
    """round(widen(x) + s) = x + round(s) for a small constant s"""
    return t.add(x, t.like(c, s)) if _rounds(c, w, x) and t.is_constant(s) and small(x, s) else None


@law(
    "c := convert(add(mul(w := convert(x), s), d))",
    example="convert(add(mul(convert(halves(4, 3), dtype='float32'), weights(3)), weights(4, 1)), dtype='bfloat16')",
    refused="convert(add(mul(convert(halves(4, 3), dtype='float32'), weights(3)), [4, 1]), dtype='bfloat16')",
    assumes={"x|d": "no_cancellation"},
)
def factor_and_shift_of_widened(t: Builder, c: Handle, w: Handle, x: Handle, s: Handle, d: Handle) -> Handle | None:
    """round(widen(x) · s + d) = x · round(s) + round(d) for small constants s and d"""
    if not (_rounds(c, w, x) and t.is_constant(s) and t.is_constant(d) and small(x, s) and small(x, d)):
        return None
    if narrow(c):  # x · s may overflow where the sum does not
        return None
    return t.add(t.mul(x, t.like(c, s)), t.like(c, d))
