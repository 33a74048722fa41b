"""Declarations with metavariables, one for each combination of the operators that these stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.laws.pattern import Place

Texts = str | Sequence[str] | Callable[..., Sequence[str]]
"""Example terms, or a function that makes them from the places that metavariables stand for."""


def substitutions(metavariables: Mapping[str, Iterable[Place]]) -> list[dict[str, Place]]:
    """All combinations of the places of metavariables."""
    result: list[dict[str, Place]] = [{}]
    for name, places in metavariables.items():
        result = [{**given, name: place} for given in result for place in places]
    return result


def label(place: Place) -> str:
    """The name of an expansion of a law: the operator, its number of operands if that varies, the position."""
    operator = OPERATORS.get(place.op)
    varies = operator is not None and operator.arity is None and "pointwise" not in operator.traits
    return place.op + (f"/{place.arity}" if varies else "") + (f".{place.position}" if place.position else "")


def expanded(texts: Texts, substitution: Mapping[str, Place]) -> tuple[str, ...]:
    """Example terms of one combination."""
    if callable(texts):
        return tuple(texts(**substitution))
    given = [texts] if isinstance(texts, str) else list(texts)
    for name, place in substitution.items():
        given = [text.replace(f"{name}(", f"{place.op}(") for text in given]
    return tuple(given)
