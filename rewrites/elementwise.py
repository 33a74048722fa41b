"""Sums and products of tensors.

Associativity and commutativity blow e-graphs up, so they are stated as directed laws: small operands (biases, scales)
gather with each other and move outwards. Commutativity itself is in the matcher, which tries both orders.
"""

import math

from torch_eqsat.rewrites.shapes import narrow, small

from torch_eqsat.rules.builder import Builder, Handle
from torch_eqsat.rules.law import equation, law, pointwise
from torch_eqsat.rules.pattern import Place

EXTREMA = [Place("maximum", 2), Place("minimum", 2)]
ASSOCIATIVE = [Place("add", 2), Place("mul", 2), *EXTREMA]
# Outside of their domain log and sqrt give NaN, which a maximum keeps: max(log(−1), log(2)) is NaN, log(2) is not.
MONOTONE = pointwise(1, trait="monotone", but=("log", "sqrt"))


@law(
    "mul(mul(x, c), d)",
    normalises=True,
    example="mul(mul([4, 3, 3], [4, 1, 1]), [1, 3])",
    refused="mul(mul([4, 1], [4, 3]), [4, 3])",
)
def small_factors_gather(t: Builder, x: Handle, c: Handle, d: Handle) -> Handle | None:
    """(x · c) · d = x · (c · d)"""
    return t.mul(x, t.mul(c, d)) if small(x, c, d) else None


@law("add(add(x, c), d)", normalises=True, example="add(add([4, 3, 3], [4, 1, 1]), [3])")
def small_addends_gather(t: Builder, x: Handle, c: Handle, d: Handle) -> Handle | None:
    """(x + c) + d = x + (c + d)"""
    return t.add(x, t.add(c, d)) if small(x, c, d) else None


@law(
    "mul(add(x, c), d)",
    normalises=True,
    example="mul(add([4, 3, 3], [4, 1, 1]), [4, 1, 1])",
    refused="mul(add([4, 3], [4, 3]), [3])",
)
def scale_of_shifted(t: Builder, x: Handle, c: Handle, d: Handle) -> Handle | None:
    """(x + c) · d = x · d + c · d"""
    if narrow(x) or not (small(x, c, d) and small(x, c) and small(x, d)):
        return None
    return t.add(t.mul(x, d), t.mul(c, d))


def _has_shift(t: Builder, x: Handle) -> bool:
    """Whether ``x`` is known as a sum with a small operand. Moving out only whole shifts, from both sides at once,
    keeps a sum of n shifted branches at about n forms; otherwise each subset of the shifts makes one."""
    return any(node.op == "add" and t.smaller_operand(node, x) for node in t.forms(x))


@law("add(add(x, c), add(y, d))", example="add(add([4, 3], [3]), add([4, 3], [3]))")
def small_addends_meet(t: Builder, x: Handle, c: Handle, y: Handle, d: Handle) -> Handle | None:
    """(x + c) + (y + d) = (x + y) + (c + d), where x and y have no shift left"""
    if x.shape != y.shape or not small(x, c, d) or _has_shift(t, x) or _has_shift(t, y):
        return None
    return t.add(t.add(x, y), t.add(c, d))


@law("add(add(x, c), y)", example="add(add([4, 3], [3]), [4, 3])")
def small_addends_move_out(t: Builder, x: Handle, c: Handle, y: Handle) -> Handle | None:
    """(x + c) + y = (x + y) + c, where neither has a shift left"""
    if x.shape != y.shape or not small(x, c) or _has_shift(t, x) or _has_shift(t, y):
        return None
    return t.add(t.add(x, y), c)


@law("add(mul(x, c), mul(x, d))", example="add(mul(x := [4, 3, 2], [3, 1]), mul(x, [2]))")
def common_factor(t: Builder, x: Handle, c: Handle, d: Handle) -> Handle | None:
    """x · c + x · d = x · (c + d)"""
    return t.mul(x, t.add(c, d)) if small(x, c, d) else None


@law("add(mul(x, c), x)", example="add(mul(x := [4, 3], [3]), x)")
def common_factor_of_one(t: Builder, x: Handle, c: Handle) -> Handle | None:
    """x · c + x = x · (c + 1)"""
    return t.mul(x, t.add(c, t.scalar(1.0, x.type.dtype))) if small(x, c) and x.type.is_floating else None


@law(
    "mul(x, s := scalar())",
    normalises=True,
    exactness="bitwise",
    example="mul([4, 3], 1.0)",
    refused="mul([4, 3], 2.0)",
)
def factor_of_one(t: Builder, x: Handle, s: Handle) -> Handle | None:
    """x · 1 = x"""
    return x if s["value"] == 1 else None


# What normalises nothing and only opens ways: a search chooses it.


@law("root := F(F(a, b), c)", F=ASSOCIATIVE, expansive=True, example="F(F([4, 3], [3]), [4, 1])")
def operation_associates(t: Builder, root: Handle, a: Handle, b: Handle, c: Handle) -> Handle:
    """(a ∘ b) ∘ c = a ∘ (b ∘ c) for sums, products, maxima and minima"""
    return t.like(root, a, t.like(root, b, c))


@equation(
    "add(mul(a, c), mul(b, c)) = mul(add(a, b), c)",
    example="add(mul([4, 3], c := [4, 3]), mul([4, 3], c))",
    back="mul(add([4, 3], [4, 3]), [4, 3])",
    expansive="both",
)
def products_with_a_common_factor() -> None:
    """a · c + b · c = (a + b) · c"""


# Powers, exponentials, quotients


@equation("div(a, b) = mul(a, reciprocal(b))", example="div([4, 3], [4, 1])", back="mul([4, 3], reciprocal([3]))")
def quotient_is_product(b: Handle) -> bool:
    """a / b = a · b⁻¹"""
    return not narrow(b)


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
    "mul(rsqrt(x), rsqrt(x)) = reciprocal(x)", example="mul(rsqrt(x := [4, 3]), rsqrt(x))", exactness="approximates"
)
def root_squared() -> None:
    """x^(−½) · x^(−½) = 1 / x for positive x"""


@equation("log(exp(x)) = x", example="log(exp([4, 3]))", exactness="approximates")
def logarithm_of_exponential() -> None:
    """log(exp(x)) = x"""


@equation("exp(log(x)) = x", example="exp(log([4, 3]))", exactness="approximates")
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
    exactness="bitwise",
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


# Zeros and differences


@equation("add(x, 0) = x", normalises=True, example="add([4, 3], 0)", refused="add([4, 3], 1)")
def addend_of_zero() -> None:
    """x + 0 = x"""


@equation(
    "add(add(x, c), mul(add(m, c), -1)) = add(x, mul(m, -1))",
    example="add(add([4, 3], c := [4, 3]), mul(add([4, 1], c), -1))",
)
def common_addend_cancels() -> None:
    """(x + c) − (m + c) = x − m"""
