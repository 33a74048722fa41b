"""Sample terms for places of operators; the laws over traits are shown and tested on them."""

from __future__ import annotations

from torch_eqsat.ir.operator import Sample
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.laws.pattern import Place

BASES = {2: "[4, 6]", 3: "[2, 4, 6]", 4: "[2, 4, 6, 6]"}
"""An input tensor of each rank."""

# Laws over traits are expanded in this order, which the search follows; what is not named comes last.
_ORDER = (
    "slice", "flip", "cumsum", "reduce", "avg_pool", "max_pool", "pad", "index", "matmul", "conv", "conv_transpose",
    "sdpa", "view", "permute", "expand", "diagonal", "embedding", "embedding_bag",
)  # fmt: skip


def samples_of(place: Place) -> list[Sample]:
    """The samples of a place."""
    return [s for s in OPERATORS[place.op].samples if (s.arity, s.position) == (place.arity, place.position)]


def sampled_places() -> list[Place]:
    """Every place that has a sample, once."""
    ordered = [*_ORDER, *(op for op in OPERATORS if op not in _ORDER)]
    return list(dict.fromkeys(Place(op, s.arity, s.position) for op in ordered for s in OPERATORS[op].samples))
