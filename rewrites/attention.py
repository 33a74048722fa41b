"""Attention, fused and written out.

The fused operator stays as it is, because Inductor calls a special kernel for it. Numbers move into its scale, slices
move through it (selection.py), and it is linear in the values (principles.py). Written-out attention consists of matrix
products, exponentials and a quotient, whose laws are in other families: the normalisation is a factor per row, which
moves behind the product with the values; without a softmax, the products re-associate. No law turns written-out
attention into the fused form: Inductor's patterns do, before the capture (torch_eqsat/planning/inductor/attention.py).
"""

import math

from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.laws.law import law
from torch_eqsat.laws.pattern import Place

ATTENTION = [Place("sdpa", 3), Place("sdpa", 4)]


def _attention(S: Place, q: str, k: str) -> str:
    mask = ", [1, 1, 5, 5]" if S.arity == 4 else ", causal=True"
    return f"sdpa({q}, {k}, [1, 2, 5, 4]{mask})"


def _near_misses(S: Place, q: str, k: str) -> list[str]:
    """Near misses: a factor that is not a number, a factor 0 and, for causal attention, a negative factor."""
    texts = [_attention(S, q.format(s), k.format(s)) for s in ("[4]", "0.0")]
    return texts if S.arity == 4 else [*texts, _attention(S, q.format("-1.0"), k.format("-1.0"))]


def _may_scale(y: Handle, s: Handle) -> bool:
    """Whether the number may move into the scale: the kernel multiplies −∞ at masked places by it."""
    scale = y["scale"] * s["value"]
    return math.isfinite(scale) and (scale > 0 if y["causal"] else scale != 0)


@law(
    "y := S(mul(q, s := scalar()))",
    S=ATTENTION,
    example=lambda S: [_attention(S, "mul([1, 2, 5, 4], 0.5)", "[1, 2, 5, 4]")],
    refused=lambda S: _near_misses(S, "mul([1, 2, 5, 4], {})", "[1, 2, 5, 4]"),
)
def query_scale_into_attention(t: Builder, y: Handle, q: Handle, s: Handle) -> Handle | None:
    """attention(s · q, k, v; c) = attention(q, k, v; c · s) for a number s"""
    return t.on(y, 0, q, scale=y["scale"] * s["value"]) if q.rank == 4 and _may_scale(y, s) else None


@law(
    "y := S(mul(k, s := scalar()))",
    S=[place._replace(position=1) for place in ATTENTION],
    example=lambda S: [_attention(S, "[1, 2, 5, 4]", "mul([1, 2, 5, 4], 0.5)")],
    refused=lambda S: _near_misses(S, "[1, 2, 5, 4]", "mul([1, 2, 5, 4], {})"),
)
def key_scale_into_attention(t: Builder, y: Handle, k: Handle, s: Handle) -> Handle | None:
    """attention(q, s · k, v; c) = attention(q, k, v; c · s) for a number s"""
    return t.on(y, 1, k, scale=y["scale"] * s["value"]) if k.rank == 4 and _may_scale(y, s) else None


@law(
    "y := sdpa(q, k, v)",
    example="sdpa([1, 2, 5, 4], [1, 2, 1, 4], [1, 2, 1, 4])",
    refused="sdpa([1, 2, 5, 4], [1, 2, 2, 4], [1, 2, 2, 4])",
    assumes={"q": "all_finite", "k": "all_finite"},
)
def attention_to_one_key(t: Builder, y: Handle, q: Handle, k: Handle, v: Handle) -> Handle | None:
    """Attention to a single key is its value, for every query"""
    return t.expand(v, y.shape) if k.shape[2] == 1 and not y["causal"] else None
