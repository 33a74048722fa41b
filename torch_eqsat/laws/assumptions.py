"""What laws assume of the values that they match, and when that is known to hold.

A law without assumptions holds for all values: what its left side computes as finite its right side does too, equal but
for rounding errors of the left side's own size; what is infinite or NaN stays one of the two, where it is. Each
assumption names what a user risks who grants it (``options={"eqsat.assume": …}``) for values of which it is not known:

- ``finite``: no infinities or NaN. Otherwise an infinity may become NaN (∞ · a + ∞ · b against ∞ · (a + b)) or, where
  it met a zero, stay in its place (0 · ∞ is NaN); and of a convolution reach positions near by, in its own sample and
  group of channels. Granted by default: no finite number of another sample, group or row is touched.
- ``all_finite``: no infinities or NaN. Otherwise they reach results that do not depend on them: other samples, groups.
- ``even``: numbers that meet in one sum are of one magnitude, to a few digits. Otherwise the small ones take part in
  the rounding errors of the large ones, as they do in Winograd's convolutions. Granted by default.
- ``no_cancellation``: what is added is not taken away again. Otherwise rounding errors are those of the numbers before:
  ((x − m) / s) W folded into x (W / s) − m W / s is off by the rounding error of m / s. Known of values that come of
  sums of many numbers, whose own rounding errors are as large.
- ``no_mask``: neither infinite nor so large that a sum with it keeps nothing else, as masks of −∞ or the least float
  are. Otherwise softmax(x + mask), with a mask that is the same for a whole row, forgets the mask. Known of matrix
  products, parameters, and of what is bounded or made of these alone.
- ``in_range``: an index lies within its table. Otherwise no error is raised.
- ``no_overflow``: products and sums lie within the dtype, as they do in all but float16. There it is known of
  constants, whose products are computed and checked once.
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
"""What is assumed by default. ``positive`` is assumed by laws that approximate alone, which are off by default."""
EVERYTHING = frozenset(PROPERTIES)

Declared = Mapping[str, str]
"""Properties by the names of variables; of several names ("x|c") one with the property is enough; several properties
are separated by spaces."""


@dataclass(frozen=True, slots=True)
class Assumption:
    """``property`` has to be known of one of the variables ``names``."""

    property: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.property} ({' or '.join(self.names)})"


class Store(Protocol):
    """What is asked for what is known of a term."""

    def known_of(self, term: int, /) -> Known: ...

    def is_constant(self, term: int, /) -> bool: ...


class Term(Protocol):
    """A term of a match."""

    @property
    def id(self) -> int: ...

    @property
    def type(self) -> TensorType: ...


def read(declared: Declared, variables: Iterable[str]) -> tuple[Assumption, ...]:
    """The assumptions that a law declares. Raises LawError for properties or variables that are not known."""
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
    """Whether all ``assumptions`` are granted, or known to hold for what the variables are ``bound`` to."""
    return all(a.property in granted or any(_holds(a.property, bound[n], store) for n in a.names) for a in assumptions)


def _holds(property_: str, x: Term, store: Store) -> bool:
    known = store.known_of(x.id)
    interval = known.interval
    if property_ == "no_cancellation":
        return known.rounded
    if property_ == "no_overflow":
        return x.type.dtype != "float16" or store.is_constant(x.id)
    if property_ == "no_mask":
        return known.tame or is_modest(interval)
    if interval is None:
        return False
    if property_ == "positive":
        return interval[0] > 0
    return property_ in ("finite", "all_finite")
