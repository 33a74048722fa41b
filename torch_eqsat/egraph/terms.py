"""The terms of an e-graph in columns, with undo, and the e-class of each as egglog has it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch_eqsat.egraph.compile import EQUAL, READ, constructor, declare, rows_of
from torch_eqsat.egraph.constants import ConstantForms
from torch_eqsat.egraph.engine import Engine
from torch_eqsat.egraph.recipes import Numbers, Recipe, Step
from torch_eqsat.errors import UnsoundRewriteError
from torch_eqsat.ir.intervals import analyse, analyse_graph
from torch_eqsat.ir.known import Known
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.term import Attributes, Node, TermGraph
from torch_eqsat.ir.types import TensorType, broadcast_shapes
from torch_eqsat.laws.sizes import is_broadcast, smaller_operands

Key = tuple[int, ...]
"""An e-node: the number of its operator with its attributes, then the e-classes of its operands."""


@dataclass
class _Undo:
    """The Python state that a pop restores."""

    terms: int
    declared: set[tuple[str, int]]
    constant: list[bool]
    known: list[Known]
    interned: list[Key] = field(default_factory=list)


class Terms:
    """A TermStore over an engine. A column has an entry per term; what is added reaches the engine by ``flush``."""

    def __init__(self, engine: Engine, numbers: Numbers) -> None:
        self._engine, self._numbers = engine, numbers
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
        self.attribute_numbers: list[int] = []  # by index in ``attributes``, as recipes count them
        self.type_numbers: list[int] = []  # of terms, as recipes count them
        self.loaded = 0  # terms that were captured: the first ones
        self.current_law = ""  # of the terms that are added now
        self.current_merges = 0
        self._number_of_attributes: dict[Attributes, int] = {}
        self._kinds: dict[tuple[str, int], int] = {}
        self._codes: dict[tuple[str, Attributes], int] = {}
        self._code_of_step: dict[Step, int] = {}
        self._interned: dict[Key, int] = {}
        self._forms: dict[int, list[Node]] = {}
        self._constants = ConstantForms()
        self._undo: list[_Undo] = []
        self._pending: defaultdict[str, list[tuple[int, ...]]] = defaultdict(list)  # rows by relation

    def __len__(self) -> int:
        return len(self.nodes)

    def load(self, graph: TermGraph) -> None:
        """Add every term of ``graph`` under its own index, and its equalities. There must be no terms yet."""
        for node, type_, constant in zip(graph.nodes, graph.types, graph.constant, strict=True):
            self._append(self._code(node.op, node.attrs), node, type_, constant)
        known = analyse_graph(graph)  # of a captured call its meaning is known, which the calls after it build on
        self._known = [known[term] for term in range(len(graph))]
        for a, b in graph.equal:
            if self._known[a].late == self._known[b].late:  # see EGraph._unite
                self.unite(a, b)
        self.loaded = len(self.nodes)
        self.flush()

    # A TermStore

    def insert(self, node: Node, type_: TensorType, /) -> int:
        """The id of ``node``, which is added if it is new."""
        return self._insert(self._code(node.op, node.attrs), node.op, node.attrs, node.children, type_)

    def carry_out(self, recipe: Recipe, matched: Sequence[int]) -> int:
        """The id of what ``recipe``, which has a result, makes of the ``matched`` terms."""
        places = list(matched)
        for step in recipe.steps:
            code = self._code_of_step.get(step)
            if code is None:
                code = self._code_of_step[step] = self._code(step.op, step.attrs)
            operands = [places[place] for place in step.operands]
            if step.commutes:
                operands.sort()
            places.append(self._insert(code, step.op, step.attrs, operands, step.type))
        assert recipe.result is not None
        return places[recipe.result]

    def _code(self, op: str, attrs: Attributes) -> int:
        return self._codes.setdefault((op, attrs), len(self._codes))

    def _insert(self, code: int, op: str, attrs: Attributes, operands: Sequence[int], type_: TensorType) -> int:
        if op in ("add", "mul") and all(self.constant[child] for child in operands):
            return self._insert_constant(code, op, attrs, operands, type_)
        classes = tuple([self.class_of[child] for child in operands])
        found = self._interned.get((code, *classes))
        return self._insert_new(code, Node(op, attrs, classes), type_) if found is None else found

    def _insert_constant(
        self, code: int, op: str, attrs: Attributes, operands: Sequence[int], type_: TensorType
    ) -> int:
        """The id of a sum or product of constants in its normal form."""
        leaves = self._constants.leaves(op, [self.class_of[child] for child in operands])
        total = leaves[0]
        for count in range(1, len(leaves)):
            pair = (total, leaves[count])
            found = self._interned.get((code, *pair))
            if found is None:
                shape = broadcast_shapes(self.type_of(operand).shape for operand in pair)
                found = self._insert_new(code, Node(op, attrs, pair), TensorType(shape, type_.dtype))
            total = found
            self._constants.note(op, total, leaves[: count + 1])
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
        root = self.class_of[term]
        if root not in self._forms:
            self._forms[root] = [
                Node(node.op, node.attrs, tuple(self.class_of[child] for child in node.children))
                for node in (self.nodes[member] for member in self.members.get(root, ()))
            ]
        return self._forms[root]

    def _insert_new(self, code: int, node: Node, type_: TensorType) -> int:
        constant = "factory" in OPERATORS[node.op].traits or (
            bool(node.children) and all(self.constant[child] for child in node.children)
        )
        return self._append(code, node, type_, constant)

    def _append(self, code: int, node: Node, type_: TensorType | None, constant: bool) -> int:
        number = len(self.nodes)
        attrs = self._number_of_attributes.setdefault(node.attrs, len(self._number_of_attributes))
        if attrs == len(self.attributes):
            self.attributes.append(node.attrs)
            self.attribute_numbers.append(self._numbers.of_attributes(node.attrs))
        if (node.op, attrs) not in self._kinds:
            digest = hashlib.blake2b(f"{node.op} {node.attrs!r}".encode(), digest_size=7).digest()
            self._kinds[node.op, attrs] = int.from_bytes(digest, "little")
        arity = len(node.children)
        if (node.op, arity) not in self.declared:
            self.declared.add((node.op, arity))
            self._engine.declare({constructor(node.op, arity): declare(node.op, arity)})
        mask = []
        if is_broadcast(node.op, arity):
            operands = [self.types[child] for child in node.children]
            mask.append(0 if type_ is None else smaller_operands(operands, type_))
        self._pending[rows_of(node.op, arity)].append((number, attrs, *mask, *node.children))
        heavy = "heavy" in OPERATORS[node.op].traits
        self.nodes.append(node)
        self.types.append(type_)
        self.type_numbers.append(self._numbers.of_type(type_))
        self.constant.append(constant)
        self._known.append(self._analysed(node, type_))
        self.depth.append(max((self.depth[child] for child in node.children), default=0) + heavy)
        self.law.append(self.current_law)
        self.merges.append(self.current_merges)
        self.kind.append(self._kinds[node.op, attrs])
        self.class_of.append(number)
        key = (code, *node.children)
        self._interned[key] = number
        if self._undo:
            self._undo[-1].interned.append(key)
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
        for key in undo.interned:
            self._interned.pop(key, None)
        self.declared = undo.declared
        self.constant, self._known = undo.constant, undo.known
        self._constants.forget(undo.terms)
        for column in self._columns():
            del column[undo.terms :]
        self._pending.clear()
        self._refresh()

    def _columns(self) -> Sequence[list[Any]]:
        own = self.nodes, self.types, self.type_numbers, self.depth, self.law, self.merges, self.kind
        return [*own, self.class_of]

    # E-classes

    def unite(self, a: int, b: int) -> None:
        """Put two terms into one e-class, at the next flush."""
        self._pending[EQUAL].append((a, b))

    def flush(self, laws: Iterable[str] = ()) -> None:
        """Tell the engine what is new, if anything is, and read the e-classes back. Raises UnsoundRewriteError, naming
        the ``laws`` that fired, if terms of different type were put into one e-class."""
        if not self._pending:
            return
        self._engine.read(self._pending, READ)
        self._pending.clear()
        self._refresh(laws)

    def _refresh(self, laws: Iterable[str] = ()) -> None:
        inputs, outputs = next(
            ((i, o) for _, i, o in self._engine.rows(["node"])), ((), ())
        )  # none before a graph is loaded
        numbered = sorted(zip(map(self._engine.integers.__getitem__, (i for (i,) in inputs)), outputs, strict=True))
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
            if self.type_numbers[number] != self.type_numbers[root]:
                raise UnsoundRewriteError(
                    f"{self.nodes[number].op} : {self.types[number]} was put into the e-class of "
                    f"{self.nodes[root].op} : {self.types[root]} by one of {sorted(laws)}"
                )
        self.class_of_value, self.members = classes, members
        self._forms.clear()
