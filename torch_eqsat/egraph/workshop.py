"""What the e-graphs of a process share: the recipes and queries of laws, and engines that know operators and laws.

To declare the operators and laws of one graph takes egglog tens of milliseconds, as long as the search of a small one.
An engine that an e-graph gave back has its declarations, and is told those of the others when the next one takes it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch_eqsat.egraph.compile import Query, compile_law
from torch_eqsat.egraph.engine import Engine
from torch_eqsat.egraph.recipes import LawRecipes, Numbers
from torch_eqsat.laws.law import Law
from torch_eqsat.laws.pattern import applications

BATCH = "batch_"
MOST_IDLE = 4  # engines that wait; at about 1 MiB each


class Workshop:
    """Engines, queries and recipes, for one thread. An engine that is taken is given back or closed by its user."""

    def __init__(self) -> None:
        self.numbers = Numbers()
        self._queries: dict[int, tuple[Law, Query]] = {}  # by identity, with the law, so that it stays the same
        self._needs: dict[int, tuple[Law, frozenset[tuple[str, int]]]] = {}
        self._recipes: dict[int, LawRecipes] = {}
        self._declared: dict[str, str] = {}
        self._batches: dict[tuple[str, ...], int] = {}
        self._idle: list[Engine] = []

    def take(self) -> Engine:
        """An engine without facts; it knows what other engines were told."""
        engine = self._idle.pop() if self._idle else Engine()
        engine.declare(self._declared)
        engine.push()
        return engine

    def give_back(self, engine: Engine) -> None:
        """Empty an engine and keep it for the next one to take it."""
        self._declared |= {name: text for name, text in engine.known.items() if not name.startswith(BATCH)}
        if len(self._idle) < MOST_IDLE:
            engine.empty()
            self._idle.append(engine)
        else:
            engine.close()

    def close(self) -> None:
        """Free the engines that wait; those that are taken are closed when they come back no more."""
        while self._idle:
            self._idle.pop().close()

    def query(self, law: Law) -> Query:
        """The query of ``law``."""
        if id(law) not in self._queries:
            self._queries[id(law)] = law, compile_law(law, len(self._queries))
        return self._queries[id(law)][1]

    def batch(self, rulesets: Sequence[str]) -> str:
        """The name under which ``rulesets`` are run together."""
        return f"{BATCH}{self._batches.setdefault(tuple(rulesets), len(self._batches))}"

    def needs(self, law: Law) -> frozenset[tuple[str, int]]:
        """The operators that ``law`` matches, with their numbers of operands. It is not compiled for that: most laws
        never are, and to compile all of them anew took three quarters of the time of a small e-graph."""
        if id(law) not in self._needs:
            self._needs[id(law)] = law, frozenset(a.constructor for a in applications(law.pattern))
        return self._needs[id(law)][1]

    def recipes_of(self, law: Law) -> LawRecipes:
        """The recipes of ``law``."""
        if id(law) not in self._recipes:
            self._recipes[id(law)] = LawRecipes(law, self.query(law).columns)
        return self._recipes[id(law)]
