"""What is known of a value for every input: the interval that it lies in, and whether it carries rounding errors."""

from __future__ import annotations

from dataclasses import dataclass

MODEST = 2.0**16
"""The bound of a constant of which the fact ``modest`` is known: finite, and none larger in magnitude."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one value."""

    interval: Interval | None = None
    """All elements lie in it and none is NaN; None if no such interval is known."""
    rounded: bool = False
    """It results from a sum of many numbers, so that it already has rounding errors of its own size."""
    tame: bool = False
    """It results from matrix products, parameters and bounded numbers, none of which is a mask (an addend of −∞ or the
    least float)."""
    late: bool = False
    """It depends on the gradients that a backward graph is given."""

    def met(self, other: Known) -> Known:
        """What two e-nodes of one e-class know together."""
        if self == other:
            return self
        a, b = self.interval, other.interval
        both = (max(a[0], b[0]), min(a[1], b[1])) if a and b else a or b
        return Known(both, self.rounded or other.rounded, self.tame or other.tame, self.late and other.late)

    def facts(self) -> dict[str, int]:
        """The facts, as attributes of an input that stands for this value in a part of the graph."""
        said = {"rounded": self.rounded, "tame": self.tame, "late": self.late}
        return {name: 1 for name, holds in said.items() if holds}


NOTHING = Known()
