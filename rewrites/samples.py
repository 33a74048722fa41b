"""Sample terms for places of operators: what the laws over traits are shown and tested on."""

from __future__ import annotations

from torch_eqsat.ir.operator import Sample
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.laws.pattern import Place

BASES = {2: "[4, 6]", 3: "[2, 4, 6]", 4: "[2, 4, 6, 6]"}
"""An input tensor of each rank."""


def samples_of(place: Place) -> list[Sample]:
    """The samples of a place."""
    return [s for s in OPERATORS[place.op].samples if (s.arity, s.position) == (place.arity, place.position)]


def sampled_places() -> list[Place]:
    """Every place that has a sample, once."""
    places = (Place(op, s.arity, s.position) for op, record in OPERATORS.items() for s in record.samples)
    return list(dict.fromkeys(places))
