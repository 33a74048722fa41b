"""Matching: the laws that can match, their match tables, and the handles that a match binds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch_eqsat.egraph.compile import CLEAR, Column
from torch_eqsat.egraph.engine import Engine
from torch_eqsat.egraph.terms import Terms
from torch_eqsat.egraph.workshop import Workshop
from torch_eqsat.ir.builder import Handle
from torch_eqsat.ir.term import Attributes
from torch_eqsat.laws.law import Law

FEWEST_TOGETHER = 4  # rulesets

Row = tuple[int, ...]
"""A match: e-class ids and attribute numbers, by the columns of the law's query."""


class Matching:
    """The queries of laws over the terms of an engine."""

    def __init__(self, engine: Engine, terms: Terms, workshop: Workshop) -> None:
        self._engine, self._terms, self._workshop = engine, terms, workshop
        self._active: dict[int, bool] = {}  # laws by identity: whether all of their operators occur
        self._undo: list[dict[int, bool]] = []
        self._activated: dict[int, tuple[Sequence[Law], int, list[Law]]] = {}  # by identity: laws, operators, result

    def push(self) -> None:
        """Remember which laws are active; the engine is pushed by the caller."""
        self._undo.append(dict(self._active))

    def pop(self) -> None:
        """Go back to the active laws of the last push."""
        self._active = self._undo.pop()
        self._activated.clear()

    def activate(self, laws: Sequence[Law]) -> list[Law]:
        """The ``laws`` that can match, because all of their operators occur.

        Only these are declared, because egglog copies all declarations at every push: with all of 294 laws, a push and
        a pop took 31 ms.
        """
        occurring, active = self._terms.declared, self._active
        before = self._activated.get(id(laws))
        if before is not None and before[1] == len(occurring):
            return before[2]
        texts: dict[str, str] = {}
        for law in laws:
            if id(law) not in active and self._workshop.needs(law) <= occurring:
                texts |= self._workshop.query(law).texts
                active[id(law)] = True
        self._engine.declare(texts)
        found = [law for law in laws if id(law) in active]
        self._activated[id(laws)] = laws, len(occurring), found  # with the laws, so that no others get their identity
        return found

    def clear(self, laws: Iterable[Law]) -> None:
        """Forget the matches of ``laws``, except for siblings, whose groups consist of all matches, old and new."""
        if numbers := [(self._workshop.query(law).number,) for law in laws if not law.siblings]:
            self._engine.read({f"{CLEAR}_laws": numbers}, CLEAR)

    def tables(self, laws: Sequence[Law]) -> dict[str, list[Row]]:
        """The sorted matches of active ``laws``, by the name of the law, without laws that have none."""
        queries = [self._workshop.query(law) for law in laws]
        self._run([query.ruleset for query in queries])
        by_number = {query.number: law for query, law in zip(queries, laws, strict=True)}
        integers, classes = self._engine.integers, self._terms.class_of_value
        tables: dict[str, list[Row]] = {}
        for _, rows, _ in self._engine.rows(dict.fromkeys(query.relation for query in queries)):
            found: dict[int, list[Sequence[Any]]] = {}
            for row in rows:
                found.setdefault(integers[row[0]], []).append(row)
            for number, own in found.items():
                law = by_number.get(number)
                if law is not None:
                    _, *columns = zip(*own, strict=True)
                    sources = [integers if column.attribute else classes for column in self.columns(law)]
                    decoded = [map(s.__getitem__, c) for s, c in zip(sources, columns, strict=True)]
                    tables[law.name] = sorted(zip(*decoded, strict=True))
        return tables

    def _run(self, rulesets: Sequence[str]) -> None:
        """Run rulesets that only find matches, at once: one by one, each takes 11 µs even without a match."""
        if len(rulesets) < FEWEST_TOGETHER:
            self._engine.run(rulesets)
            return
        name = self._workshop.batch(rulesets)
        self._engine.declare({name: f"(unstable-combined-ruleset {name} {' '.join(rulesets)})"})
        self._engine.run([name])

    def columns(self, law: Law) -> Sequence[Column]:
        """The columns of the matches of ``law``."""
        return self._workshop.query(law).columns

    def keys(self, law: Law, rows: Sequence[Row]) -> Iterator[tuple[int, ...]]:
        """The types and attributes of each match, by the numbers that recipes give them."""
        terms = self._terms
        numbers = [terms.attribute_numbers if c.attribute else terms.type_numbers for c in self.columns(law)]
        columns = zip(*rows, strict=True)
        return zip(*[map(n.__getitem__, column) for n, column in zip(numbers, columns, strict=True)], strict=True)

    def bind(self, law: Law, row: Row) -> dict[str, Handle] | None:
        """Handles by name for one match; None if a value in it is not a static tensor."""
        bound: dict[str, Handle] = {}
        attrs: Attributes = ()
        # From the last column on: variables first, then applications, innermost first.
        for column, value in zip(reversed(self.columns(law)), reversed(row), strict=True):
            if column.attribute:
                attrs = self._terms.attributes[value]
                if column.value is not None and dict(attrs)["value"] != column.value:
                    return None
                handle = bound[column.name]
                operands = tuple(bound[name] for name in column.operands)
                bound[column.name] = Handle(handle.id, handle.type, column.op, attrs, operands)
                continue
            type_ = self._terms.types[value]
            if type_ is None:
                return None
            bound[column.name] = Handle(value, type_)
        return bound
