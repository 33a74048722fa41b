"""Elementwise functions: powers and exponentials, signs, maxima and minima, choices.

Inductor fuses them, so the number of functions seldom matters. These laws matter because sums and factors pass through
functions, and because two functions of two tensors become one.
"""

import math

from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.laws.law import equation, law
from torch_eqsat.laws.pattern import Place, pointwise
from torch_eqsat.rewrites.shapes import narrow

EXTREMA = [Place("maximum", 2), Place("minimum", 2)]
# log and sqrt are NaN outside of their domain, and a maximum keeps NaN: max(log(−1), log(2)) is NaN, log(2) is not.
MONOTONE = pointwise(1, trait="monotone", but=("log", "sqrt"))


# Powers, exponentials, quotients


@equation(
    "div(a, b) = mul(a, reciprocal(b))",
    example="div([4, 3], [4, 1])",
    back="mul([4, 3], reciprocal([3]))",
    assumes={"b": "no_overflow"},
)
def quotient_is_product() -> None:
    """a / b = a · b⁻¹"""


@equation("mul(exp(a), exp(b)) = exp(add(a, b))", example="mul(exp([4, 3]), exp([3]))", exactness="approximates")
def exponentials_multiply() -> None:
    """exp(a) · exp(b) = exp(a + b)"""


@equation("reciprocal(sqrt(x)) = rsqrt(x)", normalises=True, example="reciprocal(sqrt([4, 3]))")
def reciprocal_of_root() -> None:
    """1 / √x = x^(−½)"""


@equation("reciprocal(exp(x)) = exp(mul(x, -1))", example="reciprocal(exp([4, 3]))", exactness="approximates")
def reciprocal_of_exponential() -> None:
    """1 / exp(x) = exp(−x)"""


@equation("reciprocal(reciprocal(x)) = x", example="reciprocal(reciprocal([4, 3]))")
def reciprocal_of_reciprocal(x: Handle) -> bool:
    """1 / (1 / x) = x"""
    return not narrow(x)


@equation(
    "mul(rsqrt(x), rsqrt(x)) = reciprocal(x)",
    example="mul(rsqrt(x := [4, 3]), rsqrt(x))",
    exactness="approximates",
    assumes={"x": "positive"},
)
def root_squared() -> None:
    """x^(−½) · x^(−½) = 1 / x for positive x"""


@equation("log(exp(x)) = x", example="log(exp([4, 3]))", exactness="approximates", assumes={"x": "no_mask"})
def logarithm_of_exponential() -> None:
    """log(exp(x)) = x"""


@equation("exp(log(x)) = x", example="exp(log([4, 3]))", exactness="approximates", assumes={"x": "positive"})
def exponential_of_logarithm() -> None:
    """exp(log(x)) = x for positive x"""


@equation("reciprocal(add(exp(mul(x, -1)), 1)) = sigmoid(x)", example="reciprocal(add(exp(mul([4, 3], -1)), 1))")
def sigmoid_by_exponential(x: Handle) -> bool:
    """1 / (exp(−x) + 1) = sigmoid(x)"""
    return x.rank > 0


@equation("mul(abs(a), abs(b)) = abs(mul(a, b))", exactness="bitwise", example="mul(abs([4, 3]), abs([3]))")
def absolute_values_multiply() -> None:
    """|a| · |b| = |a · b|"""


# Signs


@law(
    "y := F(mul(x, -1))",
    F=pointwise(1, trait="odd"),
    exactness="bitwise",
    example="F(mul([4, 3], -1))",
    refused="F(mul([4, 3], -2))",
)
def sign_moves_out(t: Builder, y: Handle, x: Handle) -> Handle:
    """f(−x) = −f(x) for an odd function"""
    return t.mul(t.like(y, x), t.scalar(-1.0, x.type.dtype))


@equation("abs(mul(x, -1)) = abs(x)", exactness="bitwise", example="abs(mul([4, 3], -1))")
def absolute_value_of_negative(x: Handle) -> bool:
    """|−x| = |x|"""
    return x.rank > 0


# Maxima, minima, clamps


@equation(
    "F(F(x)) = F(x)",
    F=[Place("relu", 1), Place("abs", 1)],
    exactness="bitwise",
    example="F(F([4, 3]))",
    normalises=True,
)
def function_is_idempotent() -> None:
    """f(f(x)) = f(x) for relu and the absolute value"""


@equation(
    "F(x, x) = x",
    F=[Place("maximum", 2), Place("minimum", 2)],
    exactness="bitwise",
    example="F(x := [4, 3], x)",
    normalises=True,
)
def extremum_of_itself() -> None:
    """max(x, x) = x and min(x, x) = x"""


@law(
    "y := clamp(z := clamp(x))",
    exactness="bitwise",
    normalises=True,
    example="clamp(clamp([4, 3], low=-1.0, high=3.0), low=0.0, high=None)",
    refused="clamp(clamp([4, 3], low=-1.0, high=0.0), low=2.0, high=None)",
)
def clamps_compose(t: Builder, y: Handle, z: Handle, x: Handle) -> Handle | None:
    """clamp(clamp(x)) = clamp(x) to the common interval, if there is one"""
    low = max((b for b in (y["low"], z["low"]) if b is not None), default=None)
    high = min((b for b in (y["high"], z["high"]) if b is not None), default=None)
    return t.like(y, x, low=low, high=high) if low is None or high is None or low <= high else None


@law(
    "y := relu(mul(x, s := scalar()))",
    example="relu(mul([4, 3], 2.0))",
    refused=["relu(mul([4, 3], -2.0))", "relu(mul([4, 3], 0.0))"],
)
def positive_factor_moves_out_of_relu(t: Builder, y: Handle, x: Handle, s: Handle) -> Handle | None:
    """relu(s · x) = s · relu(x) for a number s > 0"""
    return t.mul(t.like(y, x), s) if 0 < s["value"] < math.inf and x.rank > 0 else None


@law(
    "m := M(y := F(a), z := F(b))", F=MONOTONE, M=EXTREMA, example=lambda F, M: [f"{M.op}({F.op}([4, 3]), {F.op}([3]))"]
)
def extremum_of_monotone(t: Builder, m: Handle, y: Handle, z: Handle, a: Handle, b: Handle) -> Handle | None:
    """max(f(a), f(b)) = f(max(a, b)) for a function that never decreases"""
    return t.like(y, t.like(m, a, b)) if y.attrs == z.attrs else None


@equation("M(add(a, c), add(b, c)) = add(M(a, b), c)", M=EXTREMA, example="M(add([4, 3], c := [3]), add([4, 3], c))")
def common_addend_leaves_extremum() -> None:
    """max(a + c, b + c) = max(a, b) + c"""


# Choices


@equation(
    "where(c, x, x) = x",
    exactness="bitwise",
    example="where(booleans(4, 3), x := [4, 3], x)",
    refused="where(booleans(4, 3), x := [3], x)",
)
def choice_of_itself(c: Handle, x: Handle) -> bool:
    """where(c, x, x) = x"""
    return x.numel >= c.numel


@law(
    "w := where(c, y := F(a), z := F(b))",
    F=pointwise(1),
    exactness="bitwise",
    example="where(booleans(4, 3), F([4, 3]), F([4, 3]))",
)
def choice_of_functions(t: Builder, w: Handle, c: Handle, y: Handle, z: Handle, a: Handle, b: Handle) -> Handle | None:
    """where(c, f(a), f(b)) = f(where(c, a, b))"""
    return t.like(y, t.apply("where", (c, a, b))) if y.attrs == z.attrs and a.type.dtype == b.type.dtype else None


@equation(
    "where(c, F(a, s), F(b, s)) = F(where(c, a, b), s)",
    F=[Place("add", 2), Place("mul", 2)],
    exactness="bitwise",
    example="where(booleans(4, 3), F([4, 3], s := [3]), F([4, 3], s))",
)
def choice_of_sums_or_products() -> None:
    """where(c, a ∘ s, b ∘ s) = where(c, a, b) ∘ s for sums and products"""
