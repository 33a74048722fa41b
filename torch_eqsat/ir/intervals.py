"""What is known of a value for every input: the interval that it lies in, and whether it carries rounding errors.

Laws assume things of their operands (see torch_eqsat/laws/assumptions.py); an assumption is known to hold where this
analysis says so. It works bottom-up on e-nodes, as the analyses of egg do: an e-class knows what any of its e-nodes
does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.ir.types import FLOATING, TensorType

MODEST = 2.0**16
"""The bound of a constant of which the fact ``modest`` is known: finite, and none larger in magnitude."""
LARGEST = {"float16": 6e4}  # what an interval may hold in a dtype: beyond, results may overflow
FLOAT_LARGEST = 1e30

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Known:
    """``interval``: all elements lie in it and none is NaN; None where that is not known. ``rounded``: the value comes
    of a sum of many numbers, so that it is off by some rounding errors of its own size already. ``tame``: it comes of
    matrix products, parameters and bounded numbers, none of which is a mask (an addend of −∞ or the least float).
    ``late``: it depends on the gradients that a backward graph is given."""

    interval: Interval | None = None
    rounded: bool = False
    tame: bool = False
    late: bool = False

    def met(self, other: Known) -> Known:
        """What two e-nodes of one e-class know together."""
        if self == other:
            return self
        a, b = self.interval, other.interval
        both = (max(a[0], b[0]), min(a[1], b[1])) if a and b else a or b
        return Known(both, self.rounded or other.rounded, self.tame or other.tame, self.late and other.late)

    def facts(self) -> dict[str, int]:
        """What of this an input of a part of a graph is given, in place of the term that it stands for."""
        said = {"rounded": self.rounded, "tame": self.tame, "late": self.late}
        return {name: 1 for name, holds in said.items() if holds}


NOTHING = Known()

# Sums of many numbers.
_SUMS = frozenset(["matmul", "conv", "conv_transpose", "sdpa", "cumsum", "avg_pool", "embedding_bag", "filter_bank"])
# A rounding error of an operand stays one of the result's size. (Those of sigmoid, tanh and erf vanish.)
_PASSING = frozenset(
    ["add", "mul", "div", "relu", "abs", "sqrt", "rsqrt", "reciprocal", "exp", "log", "clamp", "convert", "max_pool"]
)
# What may be infinite of numbers that are not.
_WILD = frozenset(["fx", "pointwise", "log", "div", "reciprocal", "rsqrt"])
_LOOKUPS = frozenset(["index", "embedding", "embedding_bag"])
_JOINING = {"cat": 0, "where": 1, "maximum": 0, "minimum": 0}  # parts of each operand, from this one on


def analyse(op: str, attrs: Mapping[str, Any], operands: Sequence[Known], types: Sequence[TensorType | None]) -> Known:
    """What an e-node knows by what its operands do; the last of ``types`` is that of its result.

    >>> analyse("sigmoid", {}, [Known((-4.0, 2.0))], [TensorType((3,), "float32")] * 2).interval
    (0.0, 1.0)
    """
    *inputs, result = types
    if result is None:
        return Known(late=True) if any(k.late for k in operands) else NOTHING
    interval = _bounded(_interval(op, attrs, operands, inputs, result), result.dtype)
    floating = result.dtype in FLOATING
    rounded = floating and ("rounded" in attrs or _rounded(op, attrs, operands, inputs, result))
    tame = floating and (is_modest(interval) or _tame(op, attrs, operands))
    late = "late" in attrs or any(k.late for k in operands)
    return Known(interval, rounded, tame, late) if interval or rounded or tame or late else NOTHING


def is_modest(interval: Interval | None) -> bool:
    """Whether an interval holds no large numbers."""
    return interval is not None and max(map(abs, interval)) <= MODEST


def _bounded(interval: Interval | None, dtype: str) -> Interval | None:
    limit = LARGEST.get(dtype, FLOAT_LARGEST)
    return interval if interval and all(math.isfinite(b) and abs(b) <= limit for b in interval) else None


# Rounding


def _rounded(
    op: str,
    attrs: Mapping[str, Any],
    operands: Sequence[Known],
    inputs: Sequence[TensorType | None],
    result: TensorType,
) -> bool:
    if op == "reduce" and attrs["kind"] not in ("amax", "amin"):
        source = inputs[0]
        return operands[0].rounded or (source is not None and source.numel > result.numel)
    if op in _SUMS:
        return True
    if op in _JOINING:
        parts = operands[_JOINING[op] :]
        # A number among them is a bound or a filling.
        counted = [k for k in parts if not (k.interval and k.interval[0] == k.interval[1])]
        return bool(counted) and all(k.rounded for k in counted)
    if op in _PASSING:
        return any(k.rounded for k in operands)
    passes = "selection" in OPERATORS[op].traits or op in ("pad", "reduce")
    return passes and bool(operands) and operands[0].rounded


# Masks


def _tame(op: str, attrs: Mapping[str, Any], operands: Sequence[Known]) -> bool:
    if op in ("matmul", "conv", "conv_transpose", "sdpa", "exp", "sigmoid", "tanh", "erf") or "tame" in attrs:
        return True
    if op == "clamp" and attrs["low"] is not None and attrs["high"] is not None:
        return bool(max(abs(attrs["low"]), abs(attrs["high"])) <= MODEST)
    if op == "where" or op in _LOOKUPS:
        return all(k.tame for k in (operands[1:] if op == "where" else operands[:1]))
    return op not in _WILD and bool(operands) and all(k.tame for k in operands)


# Intervals


def _interval(
    op: str,
    attrs: Mapping[str, Any],
    operands: Sequence[Known],
    inputs: Sequence[TensorType | None],
    result: TensorType,
) -> Interval | None:
    if op == "input":
        return _of_input(attrs, result)
    if op in ("equal", "dirac") or (op == "convert" and inputs[0] is not None and inputs[0].dtype == "bool"):
        return 0.0, 1.0
    if op == "scalar":
        return float(attrs["value"]), float(attrs["value"])
    if op == "clamp" and result.dtype not in FLOATING:  # a NaN would stay one
        low, high = attrs["low"], attrs["high"]
        return None if low is None or high is None or low > high else (float(low), float(high))
    if "selection" in OPERATORS[op].traits:
        return operands[0].interval
    known = [k.interval for k in operands[1 if op == "where" else 0 :]]
    if op not in _INTERVALS or not known or any(k is None for k in known):
        return None
    return _INTERVALS[op](attrs, [k for k in known if k], inputs, result)


def _of_input(facts: Mapping[str, Any], result: TensorType) -> Interval | None:
    if "value" in facts:
        return float(facts["value"]), float(facts["value"])
    if "eye" in facts or "upper" in facts or result.dtype == "bool":
        return 0.0, 1.0
    if "repeats" in facts:
        return 0.0, float((result.numel - 1) // facts["repeats"])
    if "least" in facts:
        return float(facts["least"]), float(facts["most"])
    return (-MODEST, MODEST) if "modest" in facts else None


_Rule = Callable[[Mapping[str, Any], Sequence[Interval], Sequence[TensorType | None], TensorType], Interval | None]


def _corners(a: Interval, b: Interval) -> Interval:
    products = [x * y for x in a for y in b]
    return min(products), max(products)


def _hull(_: Any, known: Sequence[Interval], *__: Any) -> Interval:
    return min(k[0] for k in known), max(k[1] for k in known)


def _pad(_: Any, known: Sequence[Interval], *__: Any) -> Interval:
    return min(0.0, known[0][0]), max(0.0, known[0][1])


def _clamp(attrs: Mapping[str, Any], known: Sequence[Interval], *_: Any) -> Interval:
    low, high = (attrs["low"], attrs["high"])
    bounds = [min(max(b, -math.inf if low is None else low), math.inf if high is None else high) for b in known[0]]
    return bounds[0], bounds[1]


def _abs(_: Any, known: Sequence[Interval], *__: Any) -> Interval:
    (low, high), *_ = known
    return (0.0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))


def _reduce(attrs: Mapping[str, Any], known: Sequence[Interval], inputs: Any, result: TensorType) -> Interval | None:
    (low, high), kind = known[0], attrs["kind"]
    count = inputs[0].numel // result.numel
    if kind == "sum":
        return count * low, count * high
    return (low, high) if kind in ("mean", "amax", "amin") else None


def _matmul(_: Any, known: Sequence[Interval], inputs: Any, __: Any) -> Interval:
    low, high = _corners(*known)
    return inputs[0].shape[-1] * low, inputs[0].shape[-1] * high


def _increasing(function: Callable[[float], float], least: float = -math.inf, most: float = 80.0) -> _Rule:
    """A function that never decreases, on its domain; results are widened by more than it is rounded."""

    def bounds(_: Any, known: Sequence[Interval], *__: Any) -> Interval | None:
        low, high = known[0]
        if low < least or high > most:
            return None
        return function(low) - 1e-3 * abs(function(low)), function(high) + 1e-3 * abs(function(high))

    return bounds


def _within(low: float, high: float) -> _Rule:
    return lambda *_: (low, high)


_INTERVALS: dict[str, _Rule] = {
    "add": lambda _, k, *__: (k[0][0] + k[1][0], k[0][1] + k[1][1]),
    "mul": lambda _, k, *__: _corners(k[0], k[1]),
    "maximum": lambda _, k, *__: (max(k[0][0], k[1][0]), max(k[0][1], k[1][1])),
    "minimum": lambda _, k, *__: (min(k[0][0], k[1][0]), min(k[0][1], k[1][1])),
    "where": _hull,
    "cat": _hull,
    "pad": _pad,
    "convert": lambda _, k, __, result: k[0] if result.dtype in FLOATING else None,
    "clamp": _clamp,
    "relu": lambda _, k, *__: (max(0.0, k[0][0]), max(0.0, k[0][1])),
    "abs": _abs,
    "exp": _increasing(math.exp),
    "sqrt": _increasing(math.sqrt, least=0.0, most=math.inf),
    "sigmoid": _within(0.0, 1.0),
    "tanh": _within(-1.0, 1.0),
    "erf": _within(-1.0, 1.0),
    "reduce": _reduce,
    "matmul": _matmul,
}


def analyse_graph(graph: TermGraph) -> dict[int, Known]:
    """What is known of each term of ``graph``; a captured call knows what its meaning does."""
    meaning = dict(graph.equal)
    known: dict[int, Known] = {}

    def visit(term: int) -> Known:
        if term not in known:
            node = graph.nodes[term]
            types = [graph.types[child] for child in node.children]
            operands = [visit(child) for child in node.children]
            known[term] = analyse(node.op, dict(node.attrs), operands, [*types, graph.types[term]])
            if term in meaning:
                known[term] = known[term].met(visit(meaning[term]))
        return known[term]

    for term in range(len(graph)):
        visit(term)
    return known
