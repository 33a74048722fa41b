"""What is known of a value for every input: the interval that it lies in, and whether it carries rounding errors."""

from __future__ import annotations

from dataclasses import dataclass

MODEST = 2.0**16
"""The bound of a constant of which the fact ``modest`` is known: finite, and none larger in magnitude."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Known:
    """``interval``: all elements lie in it and none is NaN; None where that is not known. ``rounded``: the value comes
    of a sum of many numbers, so that it is off by some rounding errors of its own size already. ``tame``: it comes of
    matrix products, parameters and bounded numbers, none of which is a mask (an addend of −∞ or the least float).
    ``late``: it depends on the gradients that a backward graph is given."""

    interval: Interval | None = None
    rounded: bool = False
    tame: bool = False
    late: bool = False

    def met(self, other: Known) -> Known:
        """What two e-nodes of one e-class know together."""
        if self == other:
            return self
        a, b = self.interval, other.interval
        both = (max(a[0], b[0]), min(a[1], b[1])) if a and b else a or b
        return Known(both, self.rounded or other.rounded, self.tame or other.tame, self.late and other.late)

    def facts(self) -> dict[str, int]:
        """What of this an input of a part of a graph is given, in place of the term that it stands for."""
        said = {"rounded": self.rounded, "tame": self.tame, "late": self.late}
        return {name: 1 for name, holds in said.items() if holds}


NOTHING = Known()
