"""What is decided about one graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch_eqsat.ir.term import TermGraph
from torch_eqsat.report import RaceReport, RegionReport


@dataclass(frozen=True)
class Plan:
    """The ``program`` that a graph is rewritten by, and what is known of it.

    ``origin`` gives for each node of the program the captured term that has its value, or -1. ``base_ms`` and
    ``best_ms`` are the predicted times of the original and of the program. ``regions`` reports the search of each group
    of equal regions. ``race`` is set if both graphs were timed. ``verdicts`` are the judge's, by fingerprint (see
    :func:`torch_eqsat.planning.verdict.fingerprint`), oldest first: "" for a program that is right, or a reason.
    ``begun`` are verdicts that time cut off, without a problem so far: the hard inputs that were tried."""

    base_ms: float
    best_ms: float
    regions: tuple[RegionReport, ...]
    program: TermGraph
    origin: tuple[int, ...]
    race: RaceReport | None = None
    verdicts: Mapping[str, str] = field(default_factory=dict)
    begun: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def saved_ms(self) -> float:
        """The predicted time saved."""
        return self.base_ms - self.best_ms


@dataclass(frozen=True)
class Planned:
    """A plan as one process has it.

    ``stored`` says that it comes from the disk, and ``may_store`` that a new one may go there. ``disturbed`` names a
    temporary failure that cut the search short. ``refused`` has the judge's reason for each region that was left out.
    """

    plan: Plan
    stored: bool = False
    may_store: bool = False
    disturbed: str = ""
    refused: tuple[str, ...] = ()
