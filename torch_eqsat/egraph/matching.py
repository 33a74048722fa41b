"""Matching: the laws that can match, their match tables, and the handles that a match binds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch_eqsat.egraph.compile import Column, Query, compile_law
from torch_eqsat.egraph.engine import Engine
from torch_eqsat.egraph.terms import Terms
from torch_eqsat.ir.builder import Handle
from torch_eqsat.ir.term import Attributes
from torch_eqsat.laws.law import Law
from torch_eqsat.laws.pattern import applications

Row = tuple[int, ...]
"""A match: e-class ids and attribute numbers, by the columns of the law's query."""


class Matching:
    """The queries of laws over the terms of an engine."""

    def __init__(self, engine: Engine, terms: Terms, laws: Sequence[Law]) -> None:
        self._engine, self._terms = engine, terms
        self._number = {law.name: number for number, law in enumerate(laws)}
        self._needs = {law.name: frozenset(a.constructor for a in applications(law.pattern)) for law in laws}
        self._queries: dict[str, Query] = {}  # of the laws activated so far
        self._active: set[str] = set()  # laws whose operators all occur
        self._undo: list[set[str]] = []

    def push(self) -> None:
        """Remember which laws are active; the engine is pushed by the caller."""
        self._undo.append(set(self._active))

    def pop(self) -> None:
        """Go back to the active laws of the last push."""
        self._active = self._undo.pop()

    def activate(self, laws: Iterable[Law]) -> list[Law]:
        """The ``laws`` that can match, because all of their operators occur.

        Only these are declared, because egglog copies all declarations at every push: with all of 294 laws, a push and
        a pop took 31 ms.
        """
        chosen = list(laws)
        declared = self._terms.declared
        new = [law for law in chosen if law.name not in self._active and self._needs[law.name] <= declared]
        for law in new:
            if law.name not in self._queries:
                self._queries[law.name] = compile_law(law, self._number[law.name])
        if new:
            self._engine.include("\n".join(self._queries[law.name].text for law in new))
            self._active.update(law.name for law in new)
        return [law for law in chosen if law.name in self._active]

    def clear(self, laws: Iterable[Law]) -> None:
        """Forget the matches of ``laws``, except for siblings, whose groups consist of all matches, old and new."""
        if clear := [self._queries[law.name].clear for law in laws if not law.siblings]:
            self._engine.run(clear)

    def tables(self, laws: Sequence[Law]) -> dict[str, list[Row]]:
        """The sorted matches of active ``laws``, by the name of the law, without laws that have none."""
        queries = {self._queries[law.name].relation: law for law in laws}
        self._engine.run(self._queries[law.name].ruleset for law in laws)
        tables: dict[str, list[Row]] = {}
        integer, class_of = self._engine.integer, self._terms.class_of_value.__getitem__
        for relation, rows, _ in self._engine.rows(queries):
            if not rows:
                continue
            law = queries[relation]
            decode = [integer if c.attribute else class_of for c in self._queries[law.name].columns]
            tables[law.name] = sorted(tuple(d(v) for d, v in zip(decode, row, strict=True)) for row in rows)
        return tables

    def columns(self, law: Law) -> Sequence[Column]:
        """The columns of the matches of an active law."""
        return self._queries[law.name].columns

    def keys(self, law: Law, rows: Iterable[Row]) -> Iterator[tuple[int, ...]]:
        """The types and attributes of each match, by the numbers that recipes give them."""
        terms = self._terms
        numbers = [terms.attribute_numbers if c.attribute else terms.type_numbers for c in self.columns(law)]
        return (tuple([number[value] for number, value in zip(numbers, row, strict=True)]) for row in rows)

    def bind(self, law: Law, row: Row) -> dict[str, Handle] | None:
        """Handles by name for one match; None if a value in it is not a static tensor."""
        bound: dict[str, Handle] = {}
        attrs: Attributes = ()
        # From the last column on: variables first, then applications, innermost first.
        query = self._queries[law.name]
        for column, value in zip(reversed(query.columns), reversed(row), strict=True):
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
