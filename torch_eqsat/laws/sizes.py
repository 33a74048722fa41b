"""What a law demands of the sizes of operands: the query leaves the other matches out.

A law's guard sees each match in Python, and most matches of a law for sums are refused there, because an addend is not
small: of 1.26 million in a search of repvgg_a0, 0.9 million.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_eqsat.errors import LawError
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.types import TensorType
from torch_eqsat.laws.pattern import Application, applications


def is_broadcast(op: str, arity: int) -> bool:
    """Whether operands may be smaller than the result."""
    return arity > 1 and "pointwise" in OPERATORS[op].traits


def smaller_operands(operands: Sequence[TensorType | None], result: TensorType) -> int:
    """Which operands have fewer elements than the result, a bit for each, the first one lowest."""
    return sum(1 << i for i, type_ in enumerate(operands) if type_ is not None and type_.numel < result.numel)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The names of operands with fewer elements than the call that they are an operand of, and of operands with as
    many, in order."""

    smaller: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()

    def mask(self, call: Application) -> int | None:
        """Which operands of a call are smaller than its result, as `smaller_operands` tells it. None if it does not
        matter: the operands beside a smaller one are whole, and otherwise all of them have to be named."""
        names = [operand.name for operand in call.children]
        if not is_broadcast(call.op, len(names)):
            return None
        if not set(self.smaller) & set(names) and not set(names) <= set(self.whole):
            return None
        return sum(1 << position for position, name in enumerate(names) if name in self.smaller)


ANY = Sizes()
"""No demands."""


def read_sizes(smaller: str, whole: str, pattern: Application) -> Sizes:
    """The sizes of operands by their names. Raises LawError for a name that says nothing of a call of ``pattern``.

    >>> from torch_eqsat.laws.pattern import parse_pattern
    >>> read_sizes("d c", "", parse_pattern("add(add(x, c), d)"))
    Sizes(smaller=('c', 'd'), whole=())
    """
    sizes = Sizes(tuple(sorted(smaller.split())), tuple(sorted(whole.split())))
    told = [call for call in applications(pattern) if sizes.mask(call) is not None]
    useful = {operand.name for call in told for operand in call.children}
    for name in (*sizes.smaller, *sizes.whole):
        if name not in useful:
            raise LawError(
                f"the size of {name!r} says nothing: no call of the pattern broadcasts it, or not all are named"
            )
        if name in sizes.smaller and name in sizes.whole:
            raise LawError(f"{name!r} is named as smaller and as whole")
    return sizes
