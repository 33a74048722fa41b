"""Assumptions of laws about the values that they match, and how an assumption is known to hold.

A law without assumptions holds for all values. An element that is finite on the left side is finite on the right side,
and equal except for rounding errors of the left side's own size; an element that is infinite or NaN is infinite or NaN
on both sides. ``options={"eqsat.assume": …}`` grants an assumption for values for which it is not known; the list says
what happens if it does not hold:

- ``finite``: no infinities or NaN. Otherwise an infinity may become NaN (∞ · a + ∞ · b against ∞ · (a + b)) or, if it
  is multiplied by a zero, remain where the other side has NaN (0 · ∞). In a convolution it may reach positions nearby,
  in its own sample and group of channels. Granted by default: finite numbers of other samples, groups and rows do not
  change.
- ``all_finite``: no infinities or NaN. Otherwise they reach results that do not depend on them, in other samples or
  groups.
- ``even``: the numbers of one sum have the same magnitude, to a few digits. Otherwise small numbers get the rounding
  errors of large ones, as in Winograd convolutions. Granted by default.
- ``no_cancellation``: addends do not cancel. Otherwise rounding errors are those of the addends: ((x − m) / s) W,
  folded into x (W / s) − m W / s, has the rounding error of m / s. Known for results of sums of many numbers, whose own
  rounding errors are as large.
- ``no_mask``: neither infinite nor so large that a sum loses its other addend, as with masks of −∞ or the least float.
  Otherwise softmax(x + mask), with one mask value for a whole row, ignores the mask. Known for matrix products,
  parameters, bounded values, and sums and products of these.
- ``in_range``: an index lies within its table. Otherwise no error is raised.
- ``no_overflow``: products and sums lie within the dtype. Otherwise ``x * 1e20 * 1e20 * 1e-20`` becomes x times
  infinity, and ``x * 1e30 * 1e-30`` loses the digits of small numbers. Known in all dtypes but float16, except for
  numbers beyond 10^15 or below 10^-15. In float16 it is known for constants, whose products are computed and checked
  once.
- ``positive``: above zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch_eqsat.errors import LawError
from torch_eqsat.ir.intervals import is_modest
from torch_eqsat.ir.known import Known
from torch_eqsat.ir.types import TensorType

PROPERTIES = (
    "finite",
    "all_finite",
    "even",
    "no_cancellation",
    "no_mask",
    "in_range",
    "no_overflow",
    "positive",
)
GRANTED = frozenset({"finite", "even"})
"""The assumptions granted by default. Only laws that approximate need ``positive``, and these are off by default."""
EVERYTHING = frozenset(PROPERTIES)
EXTREME = 1e15
"""Two numbers within its inverse and this have a product that float32 and bfloat16 hold, with room for the values."""

Declared = Mapping[str, str]
"""Properties by variable, several separated by spaces. For several variables ("x|c"), one of them is enough."""


@dataclass(frozen=True, slots=True)
class Assumption:
    """``property`` must be known for one of the variables ``names``."""

    property: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.property} ({' or '.join(self.names)})"


class Store(Protocol):
    """Answers what is known of a term."""

    def known_of(self, term: int, /) -> Known:
        """What is known of the values of ``term``."""
        ...

    def is_constant(self, term: int, /) -> bool:
        """Whether ``term`` depends on constants alone."""
        ...


class Term(Protocol):
    """A term of a match."""

    @property
    def id(self) -> int: ...

    @property
    def type(self) -> TensorType: ...


def read(declared: Declared, variables: Iterable[str]) -> tuple[Assumption, ...]:
    """The assumptions that a law declares. Raises LawError for unknown properties and unbound variables."""
    bound = list(variables)
    found = []
    for names, properties in declared.items():
        for name in names.split("|"):
            if name not in bound:
                raise LawError(f"assumption of the unbound variable {name!r}; the pattern binds {', '.join(bound)}")
        for property_ in properties.split():
            if property_ not in PROPERTIES:
                raise LawError(f"unknown assumption {property_!r}; it is one of {', '.join(PROPERTIES)}")
            found.append(Assumption(property_, tuple(names.split("|"))))
    return tuple(found)


def hold(
    assumptions: Iterable[Assumption], bound: Mapping[str, Term], store: Store, granted: frozenset[str] = GRANTED
) -> bool:
    """Whether all ``assumptions`` are granted, or known to hold for the terms ``bound`` to the variables."""
    return all(
        any(is_known(a, bound[n].id, bound[n].type, store) for n in a.names) for a in asked(assumptions, granted)
    )


def asked(assumptions: Iterable[Assumption], granted: frozenset[str]) -> list[Assumption]:
    """Those of ``assumptions`` that are not granted."""
    return [a for a in assumptions if a.property not in granted]


def is_known(assumption: Assumption, term: int, type_: TensorType, store: Store) -> bool:
    """Whether what ``assumption`` states is known of ``term``."""
    property_, known = assumption.property, store.known_of(term)
    interval = known.interval
    if property_ == "no_cancellation":
        return known.rounded
    if property_ == "no_overflow":
        return store.is_constant(term) if type_.dtype == "float16" else not _is_extreme(interval)
    if property_ == "no_mask":
        return known.tame or is_modest(interval)
    if interval is None:
        return False
    if property_ == "positive":
        return interval[0] > 0
    return property_ in ("finite", "all_finite")


def _is_extreme(interval: tuple[float, float] | None) -> bool:
    """Whether a number is so large, or so small without being 0, that a product with it may leave float32."""
    if interval is None or interval[0] != interval[1]:
        return False
    size = abs(interval[0])
    return size > EXTREME or 0 < size < 1 / EXTREME
