"""What a law demands of the sizes of operands: the query leaves the other matches out.

A law's guard sees each match in Python, and most matches of a law for sums are refused there, because an addend is not
small: of 1.26 million in a search of repvgg_a0, 0.9 million.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch_eqsat.errors import LawError
from torch_eqsat.laws.pattern import Application


@dataclass(frozen=True, slots=True)
class Sizes:
    """The names of operands with fewer elements than the call that they are an operand of, and of operands with as
    many."""

    smaller: frozenset[str] = frozenset()
    whole: frozenset[str] = frozenset()

    def mask(self, call: Application) -> int | None:
        """Which operands of a call are smaller than its result, a bit for each, the first one lowest. None if it does
        not matter: the operands beside a smaller one are whole, and otherwise all of them have to be named."""
        names = [operand.name for operand in call.children]
        if self.smaller.isdisjoint(names) and not self.whole.issuperset(names):
            return None
        return sum(1 << position for position, name in enumerate(names) if name in self.smaller)


ANY = Sizes()
"""No demands."""


def read_sizes(smaller: str, whole: str, bound: Collection[str]) -> Sizes:
    """The sizes of operands by their names, which a pattern binds. Raises LawError for names that it does not.

    >>> read_sizes("c d", "", ["x", "c", "d"]).smaller == {"c", "d"}
    True
    """
    for name in (smaller + " " + whole).split():
        if name not in bound:
            raise LawError(f"unbound name {name!r} among the sizes; the pattern binds {', '.join(bound)}")
    return Sizes(frozenset(smaller.split()), frozenset(whole.split()))
