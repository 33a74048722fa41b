"""What is known of the values of terms: an analysis of intervals, of rounding errors and of masks.

Laws assume things of their operands (see torch_eqsat/laws/assumptions.py); an assumption is known to hold where this
analysis says so. It works bottom-up on e-nodes, as the analyses of egg do: an e-class knows what any of its e-nodes
does. The rule of each operator stands in its record.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch_eqsat.ir.known import MODEST, NOTHING, Interval, Known
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.ir.types import FLOATING, TensorType

LARGEST = {"float16": 6e4}  # what an interval may hold in a dtype: beyond, results may overflow
FLOAT_LARGEST = 1e30


def analyse(op: str, attrs: Mapping[str, Any], operands: Sequence[Known], types: Sequence[TensorType | None]) -> Known:
    """What an e-node knows by what its operands do; the last of ``types`` is that of its result.

    >>> analyse("sigmoid", {}, [Known((-4.0, 2.0))], [TensorType((3,), "float32")] * 2).interval
    (0.0, 1.0)
    """
    *inputs, result = types
    if result is None:
        return Known(late=True) if any(k.late for k in operands) else NOTHING
    operator = OPERATORS[op]
    found = operator.interval(attrs, [k.interval for k in operands], inputs, result)
    interval = _bounded(found, result.dtype)
    floating = result.dtype in FLOATING
    rounded = floating and ("rounded" in attrs or operator.rounded(attrs, operands, inputs, result))
    tame = floating and (is_modest(interval) or "tame" in attrs or operator.tame(attrs, operands))
    late = "late" in attrs or any(k.late for k in operands)
    return Known(interval, rounded, tame, late) if interval or rounded or tame or late else NOTHING


def is_modest(interval: Interval | None) -> bool:
    """Whether an interval holds no large numbers."""
    return interval is not None and max(map(abs, interval)) <= MODEST


def _bounded(interval: Interval | None, dtype: str) -> Interval | None:
    limit = LARGEST.get(dtype, FLOAT_LARGEST)
    return interval if interval and all(math.isfinite(b) and abs(b) <= limit for b in interval) else None


def analyse_graph(graph: TermGraph) -> dict[int, Known]:
    """What is known of each term of ``graph``; a captured call knows what its meaning does, but for one thing: a call
    on gradients is late also where its meaning, a number, is not."""
    meaning = dict(graph.equal)
    known: dict[int, Known] = {}

    def visit(term: int) -> Known:
        if term not in known:
            node = graph.nodes[term]
            types = [graph.types[child] for child in node.children]
            operands = [visit(child) for child in node.children]
            known[term] = analyse(node.op, dict(node.attrs), operands, [*types, graph.types[term]])
            if term in meaning:
                known[term] = replace(known[term].met(visit(meaning[term])), late=known[term].late)
        return known[term]

    for term in range(len(graph)):
        visit(term)
    return known
