"""An e-graph of tensor terms under a set of laws: load a graph, apply laws, push and pop, take snapshots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch_eqsat.egraph.compile import constructor
from torch_eqsat.egraph.matching import Matching, Row
from torch_eqsat.egraph.recipes import REFUSED, Called
from torch_eqsat.egraph.snapshot import Snapshot, content_of, snapshot_of
from torch_eqsat.egraph.terms import Terms
from torch_eqsat.egraph.workshop import Workshop
from torch_eqsat.errors import TypeMismatchError, UnsoundRewriteError
from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.ir.term import Node, TermGraph
from torch_eqsat.laws.assumptions import GRANTED, Assumption, asked, hold, is_known
from torch_eqsat.laws.law import Law
from torch_eqsat.laws.sizes import is_broadcast


@dataclass(frozen=True, slots=True)
class Applied:
    """The result of applying laws once. ``fired`` counts the added right sides by law, ``nodes`` is the size of the
    e-graph afterwards in e-nodes, and ``truncated`` says whether the node limit stopped it."""

    fired: dict[str, int]
    nodes: int
    truncated: bool


class EGraph:
    """An e-graph under a set of laws. Above ``limit`` e-nodes, no more right sides are added. ``granted`` assumptions
    hold for all values, known or not. The engine comes from a ``workshop`` and goes back there; without one it is the
    e-graph's own."""

    def __init__(
        self,
        laws: Sequence[Law],
        limit: int = 20_000,
        granted: frozenset[str] = GRANTED,
        workshop: Workshop | None = None,
    ) -> None:
        self.laws, self.limit, self.granted = tuple(laws), limit, granted
        self._owns_engine = workshop is None
        self._workshop = workshop or Workshop()
        self._engine = self._workshop.take()
        self._terms = Terms(self._engine, self._workshop.numbers)
        self._matching = Matching(self._engine, self._terms, self._workshop)
        self._builder = Builder(self._terms)
        # What is known of terms in a step, by property.
        self._held: defaultdict[str, dict[int, bool]] = defaultdict(dict)
        self._ceiling = self.limit  # of terms, for the law that is being applied

    def close(self, *, whole: bool = True) -> None:
        """Give the engine back; the e-graph is of no use after that. One that is not ``whole``, because an exception
        left it half way, is dropped: it cannot go back to its beginning."""
        if self._owns_engine or not whole:
            self._engine.close()
        else:
            self._workshop.give_back(self._engine)

    def load(self, graph: TermGraph) -> None:
        """Add every term of ``graph`` under its own index, and its equalities. The e-graph must be empty."""
        self._terms.load(graph)

    def push(self) -> None:
        """Remember this state."""
        self._engine.push()
        self._terms.push()
        self._matching.push()

    def pop(self) -> None:
        """Go back to the state of the last push."""
        self._engine.pop()
        self._terms.pop()
        self._matching.pop()

    # Laws

    def apply(self, laws: Sequence[Law], *, fair: bool = False) -> Applied:
        """Match all ``laws`` on the present e-graph, then add their right sides.

        With ``fair``, the laws share the room that the limit leaves, those with the fewest matches first, so that a law
        with very many matches does not exclude the others. Matches without room remain for the next call.

        Raises UnsoundRewriteError, naming laws, if terms of different type were put into one e-class; the e-graph must
        then be popped or dropped.
        """
        chosen = self._matching.activate(laws)
        self._held.clear()
        fired: dict[str, int] = {}
        tables = self._matching.tables(chosen)
        matched = [law for law in chosen if law.name in tables]
        if fair:
            matched.sort(key=lambda law: len(tables[law.name]))
        complete: list[Law] = []
        for position, law in enumerate(matched):
            self._terms.current_law = law.name
            room = max(0, self.limit - self.size)
            self._ceiling = self.size + room // (len(matched) - position) if fair else self.limit
            rows = tables[law.name]
            count = self._fire_siblings(law, rows) if law.siblings else self._fire(law, rows)
            if count:
                fired[law.name] = count
            if self.size <= self._ceiling:
                complete.append(law)
            elif not fair:
                break
        self._terms.current_law = ""
        self._matching.clear(complete)
        self._terms.flush(fired)
        return Applied(fired, self.size, len(complete) < len(matched))

    def count_matches(self, laws: Sequence[Law]) -> dict[str, int]:
        """The number of matches of each law to which it has not been applied yet, without laws that have none.

        Matches that a law's guard refuses count too. For siblings, all matches count, applied or not.
        """
        tables = self._matching.tables(self._matching.activate(laws))
        return {name: len(rows) for name, rows in tables.items()}

    def _fire(self, law: Law, rows: list[Row]) -> int:
        terms, matching = self._terms, self._matching
        recipes = self._workshop.recipes_of(law)
        places, courses = recipes.place_of, recipes.courses
        assumed = [
            (a, self._held[a.property], [places[n] for n in a.names]) for a in asked(law.assumptions, self.granted)
        ]
        root = places[law.pattern.name]
        count = 0
        for row, key in zip(rows, matching.keys(law, rows), strict=True):
            if courses.get(key) is REFUSED or not self._hold(assumed, row):
                continue
            recipe = recipes.find(key, row, partial(matching.bind, law, row), self._builder, terms.types)
            if isinstance(recipe, Called):
                count += self._call(law, row)
            elif recipe.result is not None:
                count += self._unite(law, row[root], terms.carry_out(recipe, row))
            if self.size > self._ceiling:
                break
        return count

    def _hold(self, assumed: Sequence[tuple[Assumption, dict[int, bool], list[int]]], row: Row) -> bool:
        """Whether all assumptions are known to hold for one of the terms at their places in ``row``."""
        for assumption, held, places in assumed:
            for place in places:
                term = row[place]
                if term not in held:
                    held[term] = is_known(assumption, term, self._terms.type_of(term), self._terms)
                if held[term]:
                    break
            else:
                return False
        return True

    def _call(self, law: Law, row: Row) -> int:
        """Put what ``law`` makes of a match into the e-class of its root; 1 if it was not in it, else 0."""
        bound = self._matching.bind(law, row)
        assert bound is not None
        try:
            result: Handle | None = law.build(self._builder, *(bound[name] for name in law.parameters))
        except TypeMismatchError:
            return 0
        return 0 if result is None else self._unite(law, bound[law.pattern.name].id, result.id)

    def _fire_siblings(self, law: Law, rows: list[Row]) -> int:
        root = law.pattern.name
        groups: dict[Any, list[dict[str, Handle]]] = defaultdict(list)
        for row in rows:
            bound = self._matching.bind(law, row)
            if bound is None or not self._may_merge(law, bound[root]):
                continue
            if not hold(law.assumptions, bound, self._terms, self.granted):
                continue
            shared = bound[law.shared].id if law.shared else None
            late = self._terms.known_of(bound[root].id).late
            key = (shared, bound[root].attrs, self._terms.depth[bound[root].id], late)
            groups[key].append(bound)
        count = 0
        for members in groups.values():
            unique: dict[int, dict[str, Handle]] = {}
            for member in members:
                unique.setdefault(member[root].id, member)
            if len(unique) > 1:
                count += self._replace_group(law, root, list(unique.values()))
        return count

    def _may_merge(self, law: Law, root: Handle) -> bool:
        """Whether the term ``root`` may be merged with siblings.

        Constants are not merged, because they cost nothing at run time (two linear layers: 60 e-nodes instead of
        20,000). The result of a merge is not merged again by the same law, which would make other orders of the same
        merge; another law may merge it once: the gates of a cell, then its steps.
        """
        terms = self._terms
        captured = root.id < terms.loaded
        merged_once = terms.merges[root.id] == 1 and terms.law[root.id] != law.name
        return (captured or merged_once) and not terms.constant[root.id]

    def _replace_group(self, law: Law, root: str, members: list[dict[str, Handle]]) -> int:
        self._terms.current_merges = 1 + max(self._terms.merges[member[root].id] for member in members)
        try:
            results = law.build(self._builder, members)
        except TypeMismatchError:
            return 0
        finally:
            self._terms.current_merges = 0
        if results is None:
            return 0
        count = 0
        for member, result in zip(members, results, strict=True):
            count += 0 if result is None else self._unite(law, member[root].id, result.id)
        return count

    def _unite(self, law: Law, root: int, result: int) -> int:
        """Put the term ``result`` into the e-class of ``root``; 1 if it was not in it, else 0."""
        terms = self._terms
        if terms.class_of[result] == terms.class_of[root]:
            return 0
        # A term of the forward must not depend on gradients, because the graph is cut in two later. Nor may a term of
        # the backward join it there, which other terms that are equal to it would follow.
        if terms.known_of(result).late != terms.known_of(root).late:
            return 0
        if terms.type_numbers[result] != terms.type_numbers[root]:
            raise UnsoundRewriteError(
                f"law {law.name} ({law.source}) turns {terms.types[root]} into {terms.types[result]}"
            )
        terms.unite(root, result)
        return 1

    # Reading

    def snapshot(self) -> Snapshot:
        """All e-nodes, by constructor and row, in a fixed order."""
        terms = self._terms
        found: list[tuple[int, Node]] = []
        names = {constructor(op, arity): op for op, arity in terms.declared}
        begins = {constructor(*declared): 1 + is_broadcast(*declared) for declared in terms.declared}
        for name, inputs, outputs in self._engine.rows(sorted(names)):
            begin = begins[name]  # of the operands
            for row, output in zip(inputs, outputs, strict=True):
                attrs = terms.attributes[self._engine.integers[row[0]]]
                children = tuple(terms.class_of_value[value] for value in row[begin:])
                found.append((terms.class_of_value[output], Node(names[name], attrs, children)))
        return snapshot_of(found, terms.nodes, terms.class_of, terms.law, terms.types, terms.constant)

    @property
    def content(self) -> int:
        """A hash of 64 bits, equal in every process for equal e-graphs of one loaded graph."""
        terms = self._terms
        return content_of(terms.nodes, terms.kind, terms.class_of, terms.members, terms.loaded)

    @property
    def size(self) -> int:
        """The number of terms added on this path, an upper bound of the number of e-nodes."""
        return len(self._terms)
