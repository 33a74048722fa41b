"""The terms of an e-graph in columns, with undo, and the e-class of each as egglog has it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch_eqsat.egraph.compile import constructor, declare
from torch_eqsat.egraph.constants import ConstantForms
from torch_eqsat.egraph.engine import Engine
from torch_eqsat.errors import UnsoundRewriteError
from torch_eqsat.ir.intervals import analyse, analyse_graph
from torch_eqsat.ir.known import Known
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.term import Attributes, Node, TermGraph
from torch_eqsat.ir.types import TensorType, broadcast_shapes


@dataclass
class _Undo:
    """The Python state that a pop restores."""

    terms: int
    declared: set[tuple[str, int]]
    constant: list[bool]
    known: list[Known]
    interned: list[Node] = field(default_factory=list)


class Terms:
    """A TermStore over an engine. A column has an entry per term; what is added reaches the engine by ``flush``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.nodes: list[Node] = []
        self.types: list[TensorType | None] = []
        self.constant: list[bool] = []
        self.depth: list[int] = []
        self.law: list[str] = []  # that made the term
        self.merges: list[int] = []  # how many merges of siblings lie between a term and the captured graph
        self.kind: list[int] = []  # a hash of each term's operator and attributes, equal in every process
        self.class_of: list[int] = []  # the smallest term of a term's e-class, as of the last refresh
        self._known: list[Known] = []
        self.class_of_value: dict[Any, int] = {}
        self.members: dict[int, list[int]] = {}  # e-class -> its terms, as of the last refresh
        self.declared: set[tuple[str, int]] = set()  # operators that occur, with their numbers of operands
        self.attributes: list[Attributes] = []
        self.loaded = 0  # terms that were captured: the first ones
        self.current_law = ""  # of the terms that are added now
        self.current_merges = 0
        self._number_of_attributes: dict[Attributes, int] = {}
        self._kinds: dict[tuple[str, int], int] = {}
        self._interned: dict[Node, int] = {}
        self._constants = ConstantForms()
        self._undo: list[_Undo] = []
        self._pending: list[str] = []

    def __len__(self) -> int:
        return len(self.nodes)

    def load(self, graph: TermGraph) -> None:
        """Add every term of ``graph`` under its own index, and its equalities. There must be no terms yet."""
        for node, type_, constant in zip(graph.nodes, graph.types, graph.constant, strict=True):
            self._append(node, type_, constant)
        known = analyse_graph(graph)
        # A conversion knows what its operand means: of half precision's batch norms all arithmetic stands behind one.
        self._known = [
            known[i] if node.op == "convert" else k
            for i, (node, k) in enumerate(zip(graph.nodes, self._known, strict=True))
        ]
        for a, b in graph.equal:
            self.unite(a, b)
        self.loaded = len(self.nodes)
        self.flush()

    # A TermStore

    def insert(self, node: Node, type_: TensorType, /) -> int:
        """The id of ``node``, which is added if it is new."""
        if node.op in ("add", "mul") and all(self.constant[child] for child in node.children):
            return self._insert_constant(node, type_)
        key = Node(node.op, node.attrs, tuple(self.class_of[child] for child in node.children))
        found = self._interned.get(key)
        return self._insert_new(key, type_) if found is None else found

    def _insert_constant(self, node: Node, type_: TensorType) -> int:
        """The id of a sum or product of constants in its normal form."""
        leaves = self._constants.leaves(node.op, [self.class_of[child] for child in node.children])
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
        type_ = self.types[term]
        assert type_ is not None
        return type_

    def is_constant(self, term: int, /) -> bool:
        """Whether a member of the e-class of ``term`` depends on constants alone."""
        return self.constant[self.class_of[term]]

    def known_of(self, term: int, /) -> Known:
        """The known facts about the values of the e-class of ``term``."""
        return self._known[self.class_of[term]]

    def forms(self, term: int, /) -> list[Node]:
        """The e-nodes in the e-class of ``term``, as of the last refresh, with e-class ids as children (for guards)."""
        return [
            Node(node.op, node.attrs, tuple(self.class_of[child] for child in node.children))
            for node in (self.nodes[member] for member in self.members.get(self.class_of[term], ()))
        ]

    def _insert_new(self, key: Node, type_: TensorType) -> int:
        constant = "factory" in OPERATORS[key.op].traits or (
            bool(key.children) and all(self.constant[child] for child in key.children)
        )
        return self._append(key, type_, constant)

    def _append(self, node: Node, type_: TensorType | None, constant: bool) -> int:
        number = len(self.nodes)
        attrs = self._number_of_attributes.setdefault(node.attrs, len(self._number_of_attributes))
        if attrs == len(self.attributes):
            self.attributes.append(node.attrs)
        if (node.op, attrs) not in self._kinds:
            digest = hashlib.blake2b(f"{node.op} {node.attrs!r}".encode(), digest_size=7).digest()
            self._kinds[node.op, attrs] = int.from_bytes(digest, "little")
        arity = len(node.children)
        if (node.op, arity) not in self.declared:
            self.declared.add((node.op, arity))
            self._engine.include(declare(node.op, arity))
        children = "".join(f" (node {child})" for child in node.children)
        self._pending.append(f"(union (node {number}) ({constructor(node.op, arity)} {attrs}{children}))")
        heavy = "heavy" in OPERATORS[node.op].traits
        self.nodes.append(node)
        self.types.append(type_)
        self.constant.append(constant)
        self._known.append(self._analysed(node, type_))
        self.depth.append(max((self.depth[child] for child in node.children), default=0) + heavy)
        self.law.append(self.current_law)
        self.merges.append(self.current_merges)
        self.kind.append(self._kinds[node.op, attrs])
        self.class_of.append(number)
        self._interned[node] = number
        if self._undo:
            self._undo[-1].interned.append(node)
        return number

    def _analysed(self, node: Node, type_: TensorType | None) -> Known:
        classes = [self.class_of[child] for child in node.children]
        types = [self.types[c] for c in classes]
        return analyse(node.op, dict(node.attrs), [self._known[c] for c in classes], [*types, type_])

    # Undo

    def push(self) -> None:
        """Remember these terms; the engine is pushed by the caller."""
        constant, known = list(self.constant), list(self._known)
        self._undo.append(_Undo(len(self.nodes), set(self.declared), constant, known))

    def pop(self) -> None:
        """Go back to the terms of the last push, after the engine was popped."""
        undo = self._undo.pop()
        for node in undo.interned:
            self._interned.pop(node, None)
        self.declared = undo.declared
        self.constant, self._known = undo.constant, undo.known
        self._constants.forget(undo.terms)
        for column in (self.nodes, self.types, self.depth, self.law, self.merges, self.kind, self.class_of):
            del column[undo.terms :]
        self._pending.clear()
        self._refresh()

    # E-classes

    def unite(self, a: int, b: int) -> None:
        """Put two terms into one e-class, at the next flush."""
        self._pending.append(f"(union (node {a}) (node {b}))")

    def flush(self, laws: Iterable[str] = ()) -> None:
        """Tell the engine what is new, if anything is, and read the e-classes back. Raises UnsoundRewriteError, naming
        the ``laws`` that fired, if terms of different type were put into one e-class."""
        if not self._pending:
            return
        self._engine.assert_facts(self._pending)
        self._pending.clear()
        self._refresh(laws)

    def _refresh(self, laws: Iterable[str] = ()) -> None:
        ((_, inputs, outputs),) = list(self._engine.rows(["node"]))
        numbered = sorted((self._engine.integer(i), value) for (i,), value in zip(inputs, outputs, strict=True))
        classes: dict[Any, int] = {}
        members: dict[int, list[int]] = defaultdict(list)
        for number, value in numbered:
            root = classes.setdefault(value, number)
            members[root].append(number)
            self.class_of[number] = root
            if self.constant[number] and not self.constant[root]:
                self.constant[root] = True
            if self._known[number] is not self._known[root]:
                self._known[root] = self._known[root].met(self._known[number])
            if self.types[number] != self.types[root]:
                raise UnsoundRewriteError(
                    f"{self.nodes[number].op} : {self.types[number]} was put into the e-class of "
                    f"{self.nodes[root].op} : {self.types[root]} by one of {sorted(laws)}"
                )
        self.class_of_value, self.members = classes, members
