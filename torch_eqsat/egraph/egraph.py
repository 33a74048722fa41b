"""An e-graph of tensor terms under a set of laws: load a graph, apply laws, push and pop, take snapshots."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch_eqsat.egraph.compile import Query, compile_law, constructor, declare
from torch_eqsat.egraph.constants import ConstantForms
from torch_eqsat.egraph.engine import Engine
from torch_eqsat.egraph.snapshot import Snapshot, content_of, snapshot_of
from torch_eqsat.errors import TypeMismatchError, UnsoundRewriteError
from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.ir.intervals import analyse
from torch_eqsat.ir.known import Known
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.term import Attributes, Node, TermGraph
from torch_eqsat.ir.types import TensorType, broadcast_shapes
from torch_eqsat.laws.assumptions import GRANTED, hold
from torch_eqsat.laws.law import Law
from torch_eqsat.laws.pattern import applications


@dataclass(frozen=True, slots=True)
class Step:
    """The result of applying laws once. ``fired`` counts the added right sides by law, ``nodes`` is the size of the
    e-graph afterwards in e-nodes, and ``truncated`` says whether the node limit stopped it."""

    fired: dict[str, int]
    nodes: int
    truncated: bool


@dataclass
class _Undo:
    """The Python state that a pop restores."""

    terms: int
    declared: set[tuple[str, int]]
    active: set[str]
    constant: list[bool]
    known: list[Known]
    interned: list[Node] = field(default_factory=list)


class EGraph:
    """An e-graph under a set of laws. Above ``limit`` e-nodes, no more right sides are added. ``granted`` assumptions
    hold for all values, known or not."""

    def __init__(self, laws: Sequence[Law], limit: int = 20_000, granted: frozenset[str] = GRANTED) -> None:
        self.limit, self.granted = limit, granted
        self._engine = Engine()
        self._number = {law.name: number for number, law in enumerate(laws)}
        self._needs = {law.name: frozenset(a.constructor for a in applications(law.pattern)) for law in laws}
        self._queries: dict[str, Query] = {}  # of the laws activated so far
        self._builder = Builder(self)
        self._declared: set[tuple[str, int]] = set()  # operators that occur, with their numbers of operands
        self._active: set[str] = set()  # laws whose operators all occur
        self._attributes: dict[Attributes, int] = {}
        self._attribute_list: list[Attributes] = []
        self._terms: list[Node] = []
        self._types: list[TensorType | None] = []
        self._constant: list[bool] = []
        self._known: list[Known] = []
        self._depth: list[int] = []
        self._law: list[str] = []
        self._merges: list[int] = []  # how many merges of siblings lie between a term and the captured graph
        self._current_merges = 0
        self._kind: list[int] = []  # a hash of each term's operator and attributes, equal in every process
        self._kinds: dict[tuple[str, int], int] = {}
        self._interned: dict[Node, int] = {}
        self._undo: list[_Undo] = []
        self._class: list[int] = []  # term id -> smallest term id of its e-class, as of the last refresh
        self._class_of_value: dict[Any, int] = {}
        self._members: dict[int, list[int]] = {}  # e-class -> its terms, as of the last refresh
        self._constants = ConstantForms()
        self._pending: list[str] = []
        self._loaded = 0
        self._current_law = ""
        self._ceiling = self.limit  # of terms, for the law that is being applied

    def close(self) -> None:
        self._engine.close()

    # Terms

    def load(self, graph: TermGraph) -> None:
        """Add every term of ``graph`` under its own index, and its equalities. The e-graph must be empty."""
        for node, type_, constant in zip(graph.nodes, graph.types, graph.constant, strict=True):
            self._append(node, type_, constant)
        self._pending += [f"(union (node {a}) (node {b}))" for a, b in graph.equal]
        self._loaded = len(self._terms)
        self._flush()

    def insert(self, node: Node, type_: TensorType, /) -> int:
        """The id of ``node``, which is added if it is new (a method of TermStore, for builders)."""
        if node.op in ("add", "mul") and all(self._constant[child] for child in node.children):
            return self._insert_constant(node, type_)
        key = Node(node.op, node.attrs, tuple(self._class[child] for child in node.children))
        found = self._interned.get(key)
        return self._insert_new(key, type_) if found is None else found

    def _insert_constant(self, node: Node, type_: TensorType) -> int:
        """The id of a sum or product of constants in its normal form."""
        leaves = self._constants.leaves(node.op, [self._class[child] for child in node.children])
        total = leaves[0]
        for count in range(1, len(leaves)):
            operands = (total, leaves[count])
            shapes = broadcast_shapes(self.type_of(operand).shape for operand in operands)
            key = Node(node.op, node.attrs, operands)
            found = self._interned.get(key)
            total = self._insert_new(key, TensorType(shapes, type_.dtype)) if found is None else found
            self._constants.note(node.op, total, leaves[: count + 1])
        return total

    def type_of(self, term: int, /) -> TensorType:
        """The type of a term that is a tensor."""
        type_ = self._types[term]
        assert type_ is not None
        return type_

    def is_constant(self, term: int, /) -> bool:
        """Whether a member of the e-class of ``term`` depends on constants alone."""
        return self._constant[self._class[term]]

    def known_of(self, term: int, /) -> Known:
        """The known facts about the values of the e-class of ``term``."""
        return self._known[self._class[term]]

    def forms(self, term: int, /) -> list[Node]:
        """The e-nodes in the e-class of ``term``, as of the last refresh, with e-class ids as children (for guards)."""
        return [
            Node(node.op, node.attrs, tuple(self._class[child] for child in node.children))
            for node in (self._terms[member] for member in self._members.get(self._class[term], ()))
        ]

    def _insert_new(self, key: Node, type_: TensorType) -> int:
        constant = "factory" in OPERATORS[key.op].traits or (
            bool(key.children) and all(self._constant[child] for child in key.children)
        )
        return self._append(key, type_, constant)

    def _append(self, node: Node, type_: TensorType | None, constant: bool) -> int:
        number = len(self._terms)
        attrs = self._attributes.setdefault(node.attrs, len(self._attributes))
        if attrs == len(self._attribute_list):
            self._attribute_list.append(node.attrs)
        if (node.op, attrs) not in self._kinds:
            digest = hashlib.blake2b(f"{node.op} {node.attrs!r}".encode(), digest_size=7).digest()
            self._kinds[node.op, attrs] = int.from_bytes(digest, "little")
        arity = len(node.children)
        if (node.op, arity) not in self._declared:
            self._engine.include(self._declaration(node.op, arity))
        children = "".join(f" (node {child})" for child in node.children)
        self._pending.append(f"(union (node {number}) ({constructor(node.op, arity)} {attrs}{children}))")
        heavy = "heavy" in OPERATORS[node.op].traits
        self._terms.append(node)
        self._types.append(type_)
        self._constant.append(constant)
        self._known.append(self._analysed(node, type_))
        self._depth.append(max((self._depth[child] for child in node.children), default=0) + heavy)
        self._law.append(self._current_law)
        self._merges.append(self._current_merges)
        self._kind.append(self._kinds[node.op, attrs])
        self._class.append(number)
        self._interned[node] = number
        if self._undo:
            self._undo[-1].interned.append(node)
        return number

    def _analysed(self, node: Node, type_: TensorType | None) -> Known:
        classes = [self._class[child] for child in node.children]
        types = [self._types[c] for c in classes]
        return analyse(node.op, dict(node.attrs), [self._known[c] for c in classes], [*types, type_])

    def _declaration(self, op: str, arity: int) -> str:
        self._declared.add((op, arity))
        return declare(op, arity)

    def push(self) -> None:
        """Remember this state."""
        self._engine.push()
        constant, known = list(self._constant), list(self._known)
        self._undo.append(_Undo(len(self._terms), set(self._declared), set(self._active), constant, known))

    def pop(self) -> None:
        """Go back to the state of the last push."""
        self._engine.pop()
        undo = self._undo.pop()
        for node in undo.interned:
            self._interned.pop(node, None)
        self._declared, self._active = undo.declared, undo.active
        self._constant, self._known = undo.constant, undo.known
        self._constants.forget(undo.terms)
        for column in (
            self._terms, self._types, self._depth, self._law, self._merges, self._kind, self._class
        ):  # fmt: skip
            del column[undo.terms :]
        self._pending.clear()
        self._refresh()

    # Laws

    def apply(self, laws: Iterable[Law], *, fair: bool = False) -> Step:
        """Match all ``laws`` on the present e-graph, then add their right sides.

        With ``fair``, the laws share the room that the limit leaves, those with the fewest matches first, so that a law
        with very many matches does not exclude the others. Matches without room remain for the next call.

        Raises UnsoundRewriteError, naming laws, if terms of different type were put into one e-class; the e-graph must
        then be popped or dropped.
        """
        chosen = self._activate(laws)
        fired: dict[str, int] = {}
        tables = self._matches(chosen)
        matched = [law for law in chosen if law.name in tables]
        if fair:
            matched.sort(key=lambda law: len(tables[law.name]))
        complete: list[Law] = []
        for position, law in enumerate(matched):
            self._current_law = law.name
            room = max(0, self.limit - len(self._terms))
            self._ceiling = len(self._terms) + room // (len(matched) - position) if fair else self.limit
            rows = tables[law.name]
            count = self._fire_siblings(law, rows) if law.siblings else self._fire(law, rows)
            if count:
                fired[law.name] = count
            if len(self._terms) <= self._ceiling:
                complete.append(law)
            elif not fair:
                break
        self._current_law = ""
        self._clear(complete)
        if self._pending:
            self._flush(fired)
        return Step(fired, len(self._terms), len(complete) < len(matched))

    def count_matches(self, laws: Iterable[Law]) -> dict[str, int]:
        """The number of matches of each law to which it has not been applied yet, without laws that have none.

        Matches that a law's guard refuses count too. For siblings, all matches count, applied or not.
        """
        return {name: len(rows) for name, rows in self._matches(self._activate(laws)).items()}

    def _activate(self, laws: Iterable[Law]) -> list[Law]:
        """The ``laws`` that can match, because all of their operators occur.

        Only these are declared, because egglog copies all declarations at every push: with all of 294 laws, a push and
        a pop took 31 ms.
        """
        chosen = list(laws)
        new = [law for law in chosen if law.name not in self._active and self._needs[law.name] <= self._declared]
        for law in new:
            if law.name not in self._queries:
                self._queries[law.name] = compile_law(law, self._number[law.name])
        if new:
            self._engine.include("\n".join(self._queries[law.name].text for law in new))
            self._active.update(law.name for law in new)
        return [law for law in chosen if law.name in self._active]

    def _clear(self, laws: Iterable[Law]) -> None:
        """Forget the matches of ``laws``, except for siblings, whose groups consist of all matches, old and new."""
        if clear := [self._queries[law.name].clear for law in laws if not law.siblings]:
            self._engine.run(clear)

    def _matches(self, laws: list[Law]) -> dict[str, list[tuple[int, ...]]]:
        """Match tables of ``laws`` by law name: e-class ids and attribute numbers, sorted."""
        queries = {self._queries[law.name].relation: law for law in laws}
        self._engine.run(self._queries[law.name].ruleset for law in laws)
        tables: dict[str, list[tuple[int, ...]]] = {}
        for relation, rows, _ in self._engine.rows(queries):
            if not rows:
                continue
            law = queries[relation]
            columns = self._queries[law.name].columns
            decode = [self._engine.integer if c.attribute else self._class_of_value.__getitem__ for c in columns]
            tables[law.name] = sorted(tuple(d(v) for d, v in zip(decode, row, strict=True)) for row in rows)
        return tables

    def _bind(self, law: Law, row: tuple[int, ...]) -> dict[str, Handle] | None:
        """Handles by name for one match; None if a value in it is not a static tensor."""
        bound: dict[str, Handle] = {}
        attrs: Attributes = ()
        # From the last column on: variables first, then applications, innermost first.
        query = self._queries[law.name]
        for column, value in zip(reversed(query.columns), reversed(row), strict=True):
            if column.attribute:
                attrs = self._attribute_list[value]
                if column.value is not None and dict(attrs)["value"] != column.value:
                    return None
                handle = bound[column.name]
                operands = tuple(bound[name] for name in column.operands)
                bound[column.name] = Handle(handle.id, handle.type, column.op, attrs, operands)
                continue
            type_ = self._types[value]
            if type_ is None:
                return None
            bound[column.name] = Handle(value, type_)
        return bound

    def _fire(self, law: Law, rows: list[tuple[int, ...]]) -> int:
        root = law.pattern.name or "root"
        count = 0
        for row in rows:
            bound = self._bind(law, row)
            if bound is None or not hold(law.assumptions, bound, self, self.granted):
                continue
            count += self._replace(law, bound[root], partial(self._build, law, bound))
            if len(self._terms) > self._ceiling:
                break
        return count

    def _build(self, law: Law, bound: dict[str, Handle]) -> Handle | None:
        result: Handle | None = law.build(self._builder, *(bound[name] for name in law.parameters))
        return result

    def _fire_siblings(self, law: Law, rows: list[tuple[int, ...]]) -> int:
        root = law.pattern.name or "root"
        groups: dict[Any, list[dict[str, Handle]]] = defaultdict(list)
        for row in rows:
            bound = self._bind(law, row)
            if bound is None or not self._may_merge(law, bound[root]):
                continue
            if not hold(law.assumptions, bound, self, self.granted):
                continue
            shared = bound[law.shared].id if law.shared else None
            late = self.known_of(bound[root].id).late
            key = (shared, bound[root].attrs, self._depth[bound[root].id], late)
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
        captured = root.id < self._loaded
        merged_once = self._merges[root.id] == 1 and self._law[root.id] != law.name
        return (captured or merged_once) and not self._constant[root.id]

    def _replace_group(self, law: Law, root: str, members: list[dict[str, Handle]]) -> int:
        root_name = law.pattern.name or "root"
        self._current_merges = 1 + max(self._merges[member[root_name].id] for member in members)
        try:
            results = law.build(self._builder, members)
        except TypeMismatchError:
            return 0
        finally:
            self._current_merges = 0
        if results is None:
            return 0
        count = 0
        for member, result in zip(members, results, strict=True):
            count += self._unite(law, member[root], result)
        return count

    def _replace(self, law: Law, root: Handle, build: Callable[[], Handle | None]) -> int:
        """Put the term that ``build`` makes into the e-class of ``root``; 1 if it was not in it, else 0."""
        try:
            result = build()
        except TypeMismatchError:
            return 0
        return self._unite(law, root, result)

    def _unite(self, law: Law, root: Handle, result: Handle | None) -> int:
        """Put ``result`` into the e-class of ``root``; 1 if it was not in it, else 0."""
        if result is None or self._class[result.id] == self._class[root.id]:
            return 0
        # A term of the forward must not depend on gradients, because the graph is cut in two later.
        if self.known_of(result.id).late and not self.known_of(root.id).late:
            return 0
        if result.type != root.type:
            raise UnsoundRewriteError(f"law {law.name} ({law.source}) turns {root.type} into {result.type}")
        self._pending.append(f"(union (node {root.id}) (node {result.id}))")
        return 1

    # Reading

    def _flush(self, fired: dict[str, int] | None = None) -> None:
        self._engine.assert_facts(self._pending)
        self._pending.clear()
        self._refresh(fired)

    def _refresh(self, fired: dict[str, int] | None = None) -> None:
        """Read the e-class of each term back, and check that the terms of an e-class have one type."""
        ((_, inputs, outputs),) = list(self._engine.rows(["node"]))
        numbered = sorted((self._engine.integer(i), value) for (i,), value in zip(inputs, outputs, strict=True))
        classes: dict[Any, int] = {}
        members: dict[int, list[int]] = defaultdict(list)
        for number, value in numbered:
            root = classes.setdefault(value, number)
            members[root].append(number)
            self._class[number] = root
            if self._constant[number] and not self._constant[root]:
                self._constant[root] = True
            if self._known[number] is not self._known[root]:
                self._known[root] = self._known[root].met(self._known[number])
            if self._types[number] != self._types[root]:
                raise UnsoundRewriteError(
                    f"{self._terms[number].op} : {self._types[number]} was put into the e-class of "
                    f"{self._terms[root].op} : {self._types[root]} by one of {sorted(fired or {})}"
                )
        self._class_of_value, self._members = classes, members

    def snapshot(self) -> Snapshot:
        """All e-nodes, by constructor and row, in a fixed order."""
        found: list[tuple[int, Node]] = []
        names = {constructor(op, arity): op for op, arity in self._declared}
        for name, inputs, outputs in self._engine.rows(sorted(names)):
            for row, output in zip(inputs, outputs, strict=True):
                attrs = self._attribute_list[self._engine.integer(row[0])]
                children = tuple(self._class_of_value[value] for value in row[1:])
                found.append((self._class_of_value[output], Node(names[name], attrs, children)))
        return snapshot_of(found, self._terms, self._class, self._law, self._types, self._constant)

    @property
    def content(self) -> int:
        """A hash of 64 bits, equal in every process for equal e-graphs of one loaded graph."""
        return content_of(self._terms, self._kind, self._class, self._members, self._loaded)

    @property
    def size(self) -> int:
        """The number of terms added on this path, an upper bound of the number of e-nodes."""
        return len(self._terms)
