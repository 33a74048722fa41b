"""The moves of a search: batches of laws, and what was learnt about them.

``python -m bench.search.learn`` counts which laws make the e-nodes of the best programs of the benchmark's models, and
writes ``statistics.json``, which is shipped. It directs the search and nothing else: a law that is not in the file is
still used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from torch_eqsat.laws.law import Law
from torch_eqsat.search.parameters import SearchParameters

STATISTICS = Path(__file__).with_name("statistics.json")
EVERYTHING = "everything"


@dataclass(frozen=True, slots=True)
class Action:
    """A batch of laws that are applied together, once. ``weight`` says how promising it is next to others."""

    name: str
    laws: tuple[Law, ...]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class LawStatistics:
    """``useful[name]`` is the share of the programs in which a law made an e-node, among those where it matched;
    ``batches`` are sets of laws that made e-nodes of one program together, most frequent first; ``unknown`` is the
    share for a law about which nothing is known."""

    useful: Mapping[str, float] = field(default_factory=dict)
    batches: tuple[frozenset[str], ...] = ()
    unknown: float = SearchParameters().unknown_law

    def of(self, name: str) -> float:
        """How promising a law is, between 0 and 1."""
        return self.useful.get(name, self.unknown)


@cache
def shipped_statistics(unknown: float = SearchParameters().unknown_law) -> LawStatistics:
    """The statistics that come with the package; none when the file is missing."""
    if not STATISTICS.is_file():
        return LawStatistics(unknown=unknown)
    content = json.loads(STATISTICS.read_text(encoding="utf-8"))
    useful = {name: (row["useful"] + unknown) / (row["matched"] + 1) for name, row in content["laws"].items()}
    return LawStatistics(useful, tuple(frozenset(batch) for batch in content["batches"]), unknown)


def single_actions(laws: Sequence[Law], statistics: LawStatistics | None = None) -> list[Action]:
    """Each law as it is declared: its expansions over operators and its two directions together."""
    known = shipped_statistics() if statistics is None else statistics
    declared: dict[tuple[str, bool], list[Law]] = {}
    for law in laws:
        declared.setdefault((law.declaration, law.expansive), []).append(law)
    return [
        Action(group[0].name if len(group) == 1 else name, tuple(group), max(known.of(law.name) for law in group))
        for (name, _), group in declared.items()
    ]


def actions_of(laws: Sequence[Law], statistics: LawStatistics | None = None) -> list[Action]:
    """All laws at once, the batches learnt, each family, each law as declared. Expansive laws are in no batch."""
    known = shipped_statistics() if statistics is None else statistics
    tame = [law for law in laws if not law.expansive]
    batches = {EVERYTHING: tuple(tame)}
    for number, names in enumerate(known.batches):
        batches[f"learnt {number}"] = tuple(law for law in tame if law.name in names)
    for family in dict.fromkeys(law.family for law in tame):
        batches[family] = tuple(law for law in tame if law.family == family)
    kept: dict[tuple[Law, ...], str] = {}
    for name, batch in batches.items():
        if len(batch) > 1 or name == EVERYTHING:
            kept.setdefault(batch, name)
    actions = [
        Action(name, batch, max((known.of(law.name) for law in batch), default=0.0)) for batch, name in kept.items()
    ]
    return actions + [action for action in single_actions(laws, known) if action.laws not in kept]
