"""The normal form of sums and products of constants: flat, sorted, folded from the left.

Constants meet in every order in which biases and scales are gathered; without a normal form each order is an e-class of
its own (a block of seven branches: 20,000 e-nodes and still growing, against 500).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class ConstantForms:
    """What the terms that were put into normal form are the sums or products of."""

    def __init__(self) -> None:
        self._leaves: dict[tuple[str, int], tuple[int, ...]] = {}

    def leaves(self, op: str, operands: Iterable[int]) -> list[int]:
        """The e-classes that ``op`` of the e-classes ``operands`` is made of in the end, sorted."""
        return sorted(leaf for operand in operands for leaf in self._leaves.get((op, operand), (operand,)))

    def note(self, op: str, term: int, leaves: Sequence[int]) -> None:
        """Remember that ``term`` is ``op`` of ``leaves``."""
        self._leaves[op, term] = tuple(leaves)

    def forget(self, terms: int) -> None:
        """Forget all but the first so many terms."""
        self._leaves = {key: leaves for key, leaves in self._leaves.items() if key[1] < terms}
