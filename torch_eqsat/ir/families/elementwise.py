"""Operators that compute each element of the result of the elements at its place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch_eqsat.ir.known import MODEST, Interval, Known
from torch_eqsat.ir.operator import (
    Attrs,
    Operator,
    Types,
    always,
    declare,
    hull,
    never,
    no_attributes,
    no_indices,
    not_known,
    of_all,
    require,
    rounded_as_any,
    rounded_as_parts,
    same_type,
    streamed,
    tame_as_all,
)
from torch_eqsat.ir.types import FLOATING, TensorType, broadcast_shapes


def _arithmetic(_: Attrs, types: Types) -> TensorType:
    require(len({t.dtype for t in types}) == 1, f"operands of different dtype: {types}")
    return TensorType(broadcast_shapes(t.shape for t in types), types[0].dtype)


def _pointwise(attrs: Attrs, types: Types) -> TensorType:
    return TensorType(broadcast_shapes(t.shape for t in types), attrs["dtype"])


def _function(_: Attrs, types: Types) -> TensorType:
    """An elementwise function of floating operands of one dtype."""
    require(types[0].is_floating, f"a function of {types[0].dtype}")
    return _arithmetic(_, types)


def _where(_: Attrs, types: Types) -> TensorType:
    require(types[0].dtype == "bool", f"a condition of dtype {types[0].dtype}")
    require(types[1].dtype == types[2].dtype, f"a choice between {types[1].dtype} and {types[2].dtype}")
    return TensorType(broadcast_shapes(t.shape for t in types), types[1].dtype)


def _equal(_: Attrs, types: Types) -> TensorType:
    return TensorType(_arithmetic(_, types).shape, "bool")


def _convert(attrs: Attrs, types: Types) -> TensorType:
    return TensorType(types[0].shape, attrs["dtype"])


def _sum(known: Sequence[Interval]) -> Interval:
    return known[0][0] + known[1][0], known[0][1] + known[1][1]


def _positive(known: Sequence[Interval]) -> Interval:
    return max(0.0, known[0][0]), max(0.0, known[0][1])


def _corners(known: Sequence[Interval]) -> Interval:
    products = [x * y for x in known[0] for y in known[1]]
    return min(products), max(products)


def _increasing(function: Callable[[float], float], least: float = -math.inf, most: float = 80.0) -> Any:
    """A function that never decreases, on its domain; results are widened by more than it is rounded."""

    def bounds(known: Sequence[Interval]) -> Interval | None:
        low, high = known[0]
        if low < least or high > most:
            return None
        return function(low) - 1e-3 * abs(function(low)), function(high) + 1e-3 * abs(function(high))

    return of_all(bounds)


def _within(low: float, high: float) -> Any:
    return of_all(lambda _: (low, high))


def _absolute(known: Sequence[Interval]) -> Interval:
    (low, high), *_ = known
    return (0.0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))


def _hypotenuse(known: Sequence[Interval]) -> Interval:
    """Widened by more than bfloat16 rounds."""
    (least_x, most_x), (least_y, most_y) = (_absolute([k]) for k in known)
    return 0.99 * math.hypot(least_x, least_y), 1.01 * math.hypot(most_x, most_y)


def _clamped(attrs: Attrs, operands: Sequence[Interval | None], _: Any, result: TensorType) -> Interval | None:
    low, high = attrs["low"], attrs["high"]
    if result.dtype not in FLOATING:
        return None if low is None or high is None or low > high else (float(low), float(high))
    if operands[0] is None:  # a NaN would stay one
        return None
    bounds = [min(max(b, -math.inf if low is None else low), math.inf if high is None else high) for b in operands[0]]
    return bounds[0], bounds[1]


def _tame_if_clamped(attrs: Attrs, operands: Sequence[Known]) -> bool:
    if attrs["low"] is not None and attrs["high"] is not None:
        return bool(max(abs(attrs["low"]), abs(attrs["high"])) <= MODEST)
    return tame_as_all(attrs, operands)


def _converted(
    _: Attrs, operands: Sequence[Interval | None], types: Sequence[TensorType | None], result: TensorType
) -> Interval | None:
    if types[0] is not None and types[0].dtype == "bool":
        return 0.0, 1.0
    return operands[0] if result.dtype in FLOATING else None


def _rounded_from(start: int) -> Any:
    return lambda _, operands, *__: rounded_as_parts(operands[start:])


def _tame_choice(attrs: Attrs, operands: Sequence[Known]) -> bool:
    return all(known.tame for known in operands[1:])


def _elementwise(name: str, arity: int | None, infer: Any, traits: str = "", **own: Any) -> Operator:
    given = {
        "infer": infer, "acts_on": {}, "linear_in": (), "by_place": False, "interval": not_known,
        "rounded": rounded_as_any, "tame": tame_as_all, "traffic": streamed, "follows_layout": True,
        "defaults": no_attributes, "variants": (), "samples": (), "looks_up": no_indices,
    }  # fmt: skip
    return declare(name, arity, f"pointwise {traits}", **given | own)


# A rounding error of an operand vanishes in a sigmoid, a tanh or an erf; their results are bounded.
_BOUNDED: dict[str, Any] = {"rounded": never, "tame": always, "by_place": True, "exact": never}
# Arithmetic and comparisons.
_PLAIN: dict[str, Any] = {"work": "cheap", "exact": always}
# What may be infinite of numbers that are not.
_WILD: dict[str, Any] = {"tame": never, "exact": never, "by_place": True}

OPERATORS = [
    # Any other elementwise operator; the attribute uid names it.
    _elementwise(
        "pointwise",
        None,
        _pointwise,
        **_PLAIN,
        rounded=never,
        tame=never,
        by_place=True,
        defaults=lambda types: {"uid": "opaque", "dtype": types[0].dtype},
    ),
    _elementwise("add", 2, _arithmetic, "commutative", **_PLAIN, interval=of_all(_sum)),
    _elementwise("mul", 2, _arithmetic, "commutative", **_PLAIN, interval=of_all(_corners)),
    _elementwise("div", 2, _function, **_WILD, work="division"),
    _elementwise(
        "maximum",
        2,
        _function,
        "commutative",
        **_PLAIN,
        rounded=_rounded_from(0),
        by_place=True,
        interval=of_all(lambda k: (max(k[0][0], k[1][0]), max(k[0][1], k[1][1]))),
    ),
    _elementwise(
        "minimum",
        2,
        _function,
        "commutative",
        **_PLAIN,
        rounded=_rounded_from(0),
        by_place=True,
        interval=of_all(lambda k: (min(k[0][0], k[1][0]), min(k[0][1], k[1][1]))),
    ),
    _elementwise(
        "where", 3, _where, "joins", **_PLAIN, interval=of_all(hull, 1), rounded=_rounded_from(1), tame=_tame_choice
    ),
    _elementwise("equal", 2, _equal, **_PLAIN, interval=lambda *_: (0.0, 1.0), rounded=never),
    # To another dtype.
    _elementwise("convert", 1, _convert, **_PLAIN, interval=_converted, defaults=lambda _: {"dtype": "float64"}),
    # Between the attributes low and high, either of which may be None.
    _elementwise(
        "clamp",
        1,
        same_type,
        "monotone",
        **_PLAIN,
        interval=_clamped,
        tame=_tame_if_clamped,
        defaults=lambda _: {"low": 0.0, "high": None},
    ),
    _elementwise("relu", 1, _function, "monotone zero", **_PLAIN, interval=of_all(_positive)),
    _elementwise(
        "exp",
        1,
        _function,
        "monotone",
        interval=_increasing(math.exp),
        tame=always,
        exact=never,
        by_place=True,
        work="transcendental",
    ),
    _elementwise("log", 1, _function, "monotone", **_WILD, work="transcendental"),
    _elementwise(
        "sqrt",
        1,
        _function,
        "monotone zero",
        interval=_increasing(math.sqrt, least=0.0, most=math.inf),
        exact=never,
        work="division",
    ),
    _elementwise("rsqrt", 1, _function, **_WILD, work="division"),
    _elementwise("reciprocal", 1, _function, "odd", **_WILD, work="division"),
    _elementwise("sigmoid", 1, _function, "monotone", interval=_within(0.0, 1.0), **_BOUNDED, work="transcendental"),
    _elementwise("tanh", 1, _function, "monotone odd zero", interval=_within(-1.0, 1.0), **_BOUNDED, work="slow"),
    _elementwise(
        "erf", 1, _function, "monotone odd zero", interval=_within(-1.0, 1.0), **_BOUNDED, work="transcendental"
    ),
    # √(x² + y²), without the overflow of the squares.
    _elementwise(
        "hypot",
        2,
        _function,
        "commutative",
        interval=of_all(_hypotenuse),
        rounded=_rounded_from(0),
        exact=never,
        by_place=True,
        work="transcendental",
    ),
    _elementwise("abs", 1, _function, "zero", **_PLAIN, interval=of_all(_absolute)),
]
