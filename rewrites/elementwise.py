"""Sums and products of tensors.

Associativity and commutativity make e-graphs explode, so they are stated as directed laws: small operands (biases,
scales) gather and move outwards. The matcher handles commutativity: it tries both orders.
"""

from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.laws.law import equation, law
from torch_eqsat.laws.pattern import Place
from torch_eqsat.rewrites.shapes import narrow, small

ASSOCIATIVE = [Place("add", 2), Place("mul", 2), Place("maximum", 2), Place("minimum", 2)]


@law(
    "mul(mul(x, c), d)",
    normalises=True,
    smaller="c d",
    example="mul(mul([4, 3, 3], [4, 1, 1]), [1, 3])",
    refused="mul(mul([4, 1], [4, 3]), [4, 3])",
    assumes={"c": "no_overflow", "d": "no_overflow"},
)
def small_factors_gather(t: Builder, x: Handle, c: Handle, d: Handle) -> Handle | None:
    """(x · c) · d = x · (c · d)"""
    return t.mul(x, t.mul(c, d)) if small(x, c, d) else None


@law(
    "add(add(x, c), d)",
    normalises=True,
    smaller="c d",
    example="add(add([4, 3, 3], [4, 1, 1]), [3])",
    assumes={"x|c": "no_cancellation no_mask", "c|d": "no_mask"},
)
def small_addends_gather(t: Builder, x: Handle, c: Handle, d: Handle) -> Handle | None:
    """(x + c) + d = x + (c + d)"""
    return t.add(x, t.add(c, d)) if small(x, c, d) else None


@law(
    "mul(add(x, c), d)",
    normalises=True,
    smaller="c d",
    example="mul(add([4, 3, 3], [4, 1, 1]), [4, 1, 1])",
    refused="mul(add([4, 3], [4, 3]), [3])",
    assumes={"x|c": "no_cancellation", "x": "finite no_overflow"},
)
def scale_of_shifted(t: Builder, x: Handle, c: Handle, d: Handle) -> Handle | None:
    """(x + c) · d = x · d + c · d"""
    if narrow(x) or not (small(x, c, d) and small(x, c) and small(x, d)):
        return None
    return t.add(t.mul(x, d), t.mul(c, d))


def _has_shift(t: Builder, x: Handle) -> bool:
    """Whether ``x`` is known as a sum with a small operand. Shifts move out only as a whole and from both sides at
    once, so that a sum of n shifted branches has about n forms; otherwise it has one for each subset of the shifts."""
    return any(node.op == "add" and t.smaller_operand(node, x) for node in t.forms(x))


@law(
    "add(add(x, c), add(y, d))",
    smaller="c d",
    example="add(add([4, 3], [3]), add([4, 3], [3]))",
    assumes={
        "x|c": "no_cancellation no_mask",
        "y|d": "no_cancellation no_mask",
        "x|y": "no_mask",
        "c|d": "no_mask",
    },
)
def small_addends_meet(t: Builder, x: Handle, c: Handle, y: Handle, d: Handle) -> Handle | None:
    """(x + c) + (y + d) = (x + y) + (c + d), where x and y have no shift left"""
    if x.shape != y.shape or not small(x, c, d) or _has_shift(t, x) or _has_shift(t, y):
        return None
    return t.add(t.add(x, y), t.add(c, d))


@law(
    "add(s := add(x, c), y)",
    smaller="c",
    whole="s y",
    example="add(add([4, 3], [3]), [4, 3])",
    assumes={"x|c": "no_cancellation no_mask", "x|y": "no_mask"},
)
def small_addends_move_out(t: Builder, x: Handle, c: Handle, y: Handle) -> Handle | None:
    """(x + c) + y = (x + y) + c, where neither has a shift left"""
    if x.shape != y.shape or not small(x, c) or _has_shift(t, x) or _has_shift(t, y):
        return None
    return t.add(t.add(x, y), c)


@law(
    "add(mul(x, c), mul(x, d))",
    smaller="c d",
    example="add(mul(x := [4, 3, 2], [3, 1]), mul(x, [2]))",
    assumes={"x": "finite"},
)
def common_factor(t: Builder, x: Handle, c: Handle, d: Handle) -> Handle | None:
    """x · c + x · d = x · (c + d)"""
    return t.mul(x, t.add(c, d)) if small(x, c, d) and not narrow(x) else None


@law("add(mul(x, c), x)", example="add(mul(x := [4, 3], [3]), x)", assumes={"x": "finite"})
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


# Laws that only give other laws a chance: a search chooses them.


def _associated(F: Place) -> dict[str, str]:
    """Assumptions by operator: in sums, a and b may cancel; in products, b · c may overflow."""
    if F.op == "add":
        return {"a|b": "no_cancellation no_mask", "b|c": "no_mask"}
    return {"b": "no_overflow", "c": "no_overflow"} if F.op == "mul" else {}


@law("root := F(F(a, b), c)", F=ASSOCIATIVE, expansive=True, example="F(F([4, 3], [3]), [4, 1])", assumes=_associated)
def operation_associates(t: Builder, root: Handle, a: Handle, b: Handle, c: Handle) -> Handle:
    """(a ∘ b) ∘ c = a ∘ (b ∘ c) for sums, products, maxima and minima"""
    return t.like(root, a, t.like(root, b, c))


@equation(
    "add(mul(a, c), mul(b, c)) = mul(add(a, b), c)",
    example="add(mul([4, 3], c := [4, 3]), mul([4, 3], c))",
    back="mul(add([4, 3], [4, 3]), [4, 3])",
    expansive="both",
    assumes={"c": "finite", "a": "no_overflow"},
    assumes_back={"a|b": "no_cancellation", "c": "finite", "a": "no_overflow"},
)
def products_with_a_common_factor() -> None:
    """a · c + b · c = (a + b) · c"""


# Zeros and differences


@equation("add(x, 0) = x", normalises=True, example="add([4, 3], 0)", refused="add([4, 3], 1)")
def addend_of_zero() -> None:
    """x + 0 = x"""


@equation(
    "add(add(x, c), mul(add(m, c), -1)) = add(x, mul(m, -1))",
    example="add(add([4, 3], c := [4, 3]), mul(add([4, 1], c), -1))",
    assumes={"c": "no_mask"},
)
def common_addend_cancels() -> None:
    """(x + c) − (m + c) = x − m"""
