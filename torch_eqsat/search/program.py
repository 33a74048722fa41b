"""From an e-graph to an extraction problem and back to a program (a term graph)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch_eqsat.cost.pricing import NODE_MS, REWRITTEN_MS, Pricing
from torch_eqsat.egraph.snapshot import Snapshot
from torch_eqsat.extract import Choices, Extraction, ExtractionProblem, extract
from torch_eqsat.extract.problem import build_problem
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.term import Node, TermGraph
from torch_eqsat.ir.types import TensorType
from torch_eqsat.search.prices import TermPrices, absorbed_rows

LEISURE_SECONDS = 5.0  # for extracting at leisure from one e-graph


@dataclass(frozen=True, slots=True)
class Task:
    """A term graph to optimize. ``parts`` are, for ``fx`` terms, the terms of the language they stand for.

    A task made from a program (see :func:`restarted`) has that program as its first ``chosen`` terms, of each of them
    the ``origin`` and the law that ``made`` it, and for its ``fx`` terms the ``captured`` ones that they are; in a
    captured task all of these are empty, and its program is its ``fx`` terms."""

    graph: TermGraph
    parts: Mapping[int, tuple[int, ...]]
    chosen: int = 0
    origin: tuple[int, ...] = ()
    made: tuple[str, ...] = ()
    captured: Mapping[int, int] = field(default_factory=dict)

    def origin_of(self, term: int) -> int:
        """The captured term that has the value of ``term``; -1 if there is none."""
        if self.origin:
            return self.origin[term] if term < len(self.origin) else -1
        return term if term < len(self.graph) else -1

    def in_program(self, term: int) -> bool:
        """Whether ``term`` is part of the program that the task was made from."""
        return term < self.chosen if self.chosen else self.graph.nodes[term].op in ("fx", "input")


@dataclass
class Program:
    """A chosen program: ``graph`` with the task's roots in order, ``origin[i]`` the captured term that has the value
    of its node i or -1, ``cost`` in ms, and the law that ``made`` each node ("" for none). For its ``fx`` nodes
    ``meaning`` gives the term of the task that they were, and ``captured`` that of the captured task."""

    graph: TermGraph
    origin: list[int]
    cost: float
    made: list[str] = field(default_factory=list)
    meaning: dict[int, int] = field(default_factory=dict)
    captured: dict[int, int] = field(default_factory=dict)

    @property
    def laws(self) -> Counter[str]:
        """How many nodes each law made."""
        return Counter(law for law in self.made if law)


class Extractable:
    """A snapshot of a task's e-graph, ready to be priced (again and again, as more kernels are measured)."""

    def __init__(self, task: Task, snapshot: Snapshot) -> None:
        self.task = task
        self.snapshot = snapshot
        self.class_ids = sorted(snapshot.types)
        self.dense = {c: i for i, c in enumerate(self.class_ids)}
        self.roots = tuple(self.dense[snapshot.find(root)] for root in task.graph.roots)

    def original(self) -> Choices:
        """The program as captured: of each e-class its first captured e-node, so operands are always earlier terms."""
        loaded = len(self.task.graph)
        choices: Choices = {}
        for index, (owner, term) in enumerate(zip(self.snapshot.classes, self.snapshot.terms, strict=True)):
            if term < loaded and self.task.in_program(term):
                choices.setdefault(self.dense[owner], index)
        return choices

    def problem(self, pricing: Pricing) -> ExtractionProblem:
        """The extraction problem at today's prices."""
        parts = captured_prices(self.task, pricing)
        absorbed = absorbed_rows(self.snapshot) if pricing.epilogues else set()
        rows = []
        for index, (node, owner) in enumerate(zip(self.snapshot.nodes, self.snapshot.classes, strict=True)):
            meant = self.task.parts.get(self.snapshot.terms[index])
            if meant is None:
                cost = self._price(pricing, node, owner, index in absorbed) + NODE_MS + REWRITTEN_MS
            else:
                cost = NODE_MS + sum(map(parts, meant))
            rows.append((self.dense[owner], tuple(self.dense[c] for c in node.children), cost))
        return build_problem(rows, self.roots, len(self.class_ids))

    def _price(self, pricing: Pricing, node: Node, owner: int, absorbed: bool) -> float:
        types, constants = self.snapshot.types, self.snapshot.constant
        operands = [t for c in node.children if (t := types[c]) is not None]
        flags = [constants[c] for c in node.children]
        return pricing.price(node, operands, types[owner], flags, constants[owner], absorbed=absorbed)

    def extract(
        self, pricing: Pricing, seed: int = 0, milp_seconds: float = 0.0, leisure_seconds: float = LEISURE_SECONDS
    ) -> Extraction:
        """The cheapest program at today's prices, found in ``leisure_seconds``; with ``milp_seconds`` exactly, if that
        is enough, and with a lower bound (of this e-graph's programs, ms)."""
        deadline = time.monotonic() + leisure_seconds + milp_seconds
        return extract(
            self.problem(pricing),
            incumbent=self.original(),
            deadline=deadline,
            seed=seed,
            rounds=2,
            milp_seconds=milp_seconds,
        )

    def program(self, choices: Choices, cost: float) -> Program:
        """The chosen e-nodes as a term graph."""
        graph = TermGraph()
        origin: list[int] = []
        made: list[str] = []
        meaning: dict[int, int] = {}
        index_of: dict[int, int] = {}
        for owner in _operands_first(self.snapshot.nodes, self.dense, choices, self.roots):
            chosen = choices[owner]
            node, class_id = self.snapshot.nodes[chosen], self.class_ids[owner]
            children = tuple(index_of[self.dense[c]] for c in node.children)
            index = graph.add(
                Node(node.op, node.attrs, children), self._type(class_id), self.snapshot.constant[class_id]
            )
            index_of[owner] = index
            if index == len(origin):
                origin.append(self.task.origin_of(class_id))
                term = self.snapshot.terms[chosen]
                made.append(self.task.made[term] if term < len(self.task.made) else self.snapshot.laws[chosen])
                if node.op == "fx":
                    meaning[index] = term
        graph.roots = [index_of[root] for root in self.roots]
        captured = {index: self.task.captured.get(term, term) for index, term in meaning.items()}
        return Program(graph, origin, cost, made, meaning, captured)

    def _type(self, class_id: int) -> TensorType | None:
        return self.snapshot.types[class_id]


def captured_prices(task: Task, pricing: Pricing) -> TermPrices:
    """Prices of the terms of a task as the captured program uses them."""
    uses = Counter(c for t, node in enumerate(task.graph.nodes) if task.in_program(t) for c in node.children)
    uses.update(task.graph.roots)
    return TermPrices(task.graph, pricing.as_captured(), uses)


def prices_of(task: Task, program: Program, pricing: Pricing) -> list[tuple[float, ...]]:
    """For each node of a program found for ``task`` what it costs in ms at today's prices, without an e-graph: of a
    captured operator, what each of its parts does."""
    whole = restarted(task, replace(program, meaning=program.captured))
    uses = Counter(c for node in program.graph.nodes for c in node.children)
    uses.update(program.graph.roots)
    own = TermPrices(whole.graph, pricing, uses)
    captured = TermPrices(whole.graph, pricing.as_captured(), uses)
    prices: list[tuple[float, ...]] = []
    for index in range(len(program.graph)):
        parts = whole.parts.get(index)
        # No parts (None): rewritten, or opaque. Empty ones: of some calls the work is priced elsewhere.
        prices.append((own(index),) if parts is None else tuple(map(captured, parts)))
    return prices


def cost_of(task: Task, program: Program, pricing: Pricing) -> float:
    """The cost in ms of a program found for ``task`` at today's prices, without an e-graph."""
    prices = prices_of(task, program, pricing)
    rewritten = sum(program.captured.get(index, -1) not in task.parts for index in range(len(prices)))
    return sum(map(sum, prices)) + NODE_MS * len(prices) + REWRITTEN_MS * rewritten


def changed_ms(task: Task, program: Program, pricing: Pricing) -> float:
    """How much work a program changes: what is in one of it and the captured program, and not in the other (ms)."""
    own, captured = (
        Counter(round(price, 9) for node in prices_of(task, p, pricing) for price in node)
        for p in (program, captured_program(task, pricing))
    )
    return sum(price * count for price, count in ((own - captured) + (captured - own)).items())


def captured_program(task: Task, pricing: Pricing) -> Program:
    """The program as captured, made without an e-graph: the answer of a search that could not even begin."""
    graph = TermGraph()
    prices = captured_prices(task, pricing)
    origin: list[int] = []
    number: dict[int, int] = {}
    cost = 0.0
    for term in task.graph.reachable(task.graph.roots):
        node = task.graph.nodes[term]
        new = Node(node.op, node.attrs, tuple(number[child] for child in node.children))
        number[term] = graph.add(new, task.graph.types[term], task.graph.constant[term])
        origin.append(task.origin_of(term))
        parts = task.parts.get(term, (term,))
        cost += NODE_MS + sum(map(prices, parts))
    graph.roots = [number[root] for root in task.graph.roots]
    meaning = {number[term]: term for term in number if task.graph.nodes[term].op == "fx"}
    return Program(graph, origin, cost, [""] * len(graph), meaning, dict(meaning))


def restarted(task: Task, program: Program) -> Task:
    """A small task whose program is ``program``, one found for ``task``: its nodes, and what its ``fx`` nodes mean."""
    graph = TermGraph()
    for node, type_, constant in zip(program.graph.nodes, program.graph.types, program.graph.constant, strict=True):
        graph.add(node, type_, constant)
    graph.roots = list(program.graph.roots)
    chosen = len(graph)
    equal = dict(task.graph.equal)
    parts: dict[int, tuple[int, ...]] = {}
    for index, term in program.meaning.items():
        if term not in task.parts:
            continue
        number = _operands(task.graph, term, graph, index)
        parts[index] = tuple(_place(task.graph, part, graph, number) for part in task.parts[term])
        if term in equal:
            graph.equal.append((index, _place(task.graph, equal[term], graph, number)))
    return Task(graph, parts, chosen, tuple(program.origin), tuple(program.made), dict(program.captured))


def _operands(source: TermGraph, term: int, target: TermGraph, index: int) -> dict[int, int]:
    """The operands of a call in ``target``, by those of what it was in ``source``. The meaning of an item of a tuple is
    stated over the operands of the call that returns the tuple."""
    number = dict(zip(source.nodes[term].children, target.nodes[index].children, strict=True))
    for before, after in list(number.items()):
        if source.types[before] is None and source.nodes[before].op == "fx":
            number |= zip(source.nodes[before].children, target.nodes[after].children, strict=True)
    return number


def _place(source: TermGraph, term: int, target: TermGraph, number: dict[int, int]) -> int:
    """The term of ``target`` for one of ``source``; ``number`` says so for some, and for all that are placed."""
    if term not in number:
        node = source.nodes[term]
        children = tuple(_place(source, child, target, number) for child in node.children)
        if "commutative" in OPERATORS[node.op].traits:
            children = tuple(sorted(children))
        number[term] = target.add(Node(node.op, node.attrs, children), source.types[term], source.constant[term])
    return number[term]


def _operands_first(
    nodes: Sequence[Node], dense: Mapping[int, int], choices: Choices, roots: Sequence[int]
) -> list[int]:
    """Chosen e-classes in an order that puts operands before what uses them."""
    order: list[int] = []
    done: set[int] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        owner, expanded = stack.pop()
        if owner in done:
            continue
        if expanded:
            done.add(owner)
            order.append(owner)
            continue
        stack.append((owner, True))
        stack += [(dense[c], False) for c in reversed(nodes[choices[owner]].children) if dense[c] not in done]
    return order
