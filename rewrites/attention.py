"""Attention, fused and written out.

The fused operator is kept where it is, since Inductor calls a kernel of its own for it: numbers move into its scale
and slices through it (selection.py); it is linear in the values (principles.py). Attention that is written out is
matrix products, exponentials and a quotient, whose laws stand in their own families: the normalisation is a factor per
row, which moves behind the product with the values; without a softmax the products re-associate. Laws that would turn
written-out attention into the fused form are left to Inductor, which has patterns for it.
"""

from torch_eqsat.rules.builder import Builder, Handle
from torch_eqsat.rules.law import law
from torch_eqsat.rules.pattern import Place

ATTENTION = [Place("sdpa", 3), Place("sdpa", 4)]


def _attention(S: Place, q: str, k: str) -> list[str]:
    mask = ", [1, 1, 5, 5]" if S.arity == 4 else ""
    return [f"sdpa({q}, {k}, [1, 2, 5, 4]{mask})"]


@law(
    "y := S(mul(q, s := scalar()))",
    S=ATTENTION,
    example=lambda S: _attention(S, "mul([1, 2, 5, 4], 0.5)", "[1, 2, 5, 4]"),
    refused=lambda S: _attention(S, "mul([1, 2, 5, 4], [4])", "[1, 2, 5, 4]"),
)
def query_scale_into_attention(t: Builder, y: Handle, q: Handle, s: Handle) -> Handle | None:
    """attention(s · q, k, v; c) = attention(q, k, v; c · s) for a number s"""
    return t.on(y, 0, q, scale=y["scale"] * s["value"]) if q.rank == 4 else None


@law(
    "y := S(mul(k, s := scalar()))",
    S=[place._replace(position=1) for place in ATTENTION],
    example=lambda S: _attention(S, "[1, 2, 5, 4]", "mul([1, 2, 5, 4], 0.5)"),
    refused=lambda S: _attention(S, "[1, 2, 5, 4]", "mul([1, 2, 5, 4], [4])"),
)
def key_scale_into_attention(t: Builder, y: Handle, k: Handle, s: Handle) -> Handle | None:
    """attention(q, s · k, v; c) = attention(q, k, v; c · s) for a number s"""
    return t.on(y, 1, k, scale=y["scale"] * s["value"]) if k.rank == 4 else None


@law(
    "y := sdpa(q, k, v)",
    example="sdpa([1, 2, 5, 4], [1, 2, 1, 4], [1, 2, 1, 4])",
    refused="sdpa([1, 2, 5, 4], [1, 2, 2, 4], [1, 2, 2, 4])",
)
def attention_to_one_key(t: Builder, y: Handle, q: Handle, k: Handle, v: Handle) -> Handle | None:
    """Attention to a single key is its value, for every query"""
    return t.expand(v, y.shape) if k.shape[2] == 1 and not y["causal"] else None
