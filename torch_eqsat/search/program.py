"""From an e-graph to an extraction problem and back to a program (a term graph)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch_eqsat.cost.pricing import NODE_MS, REWRITTEN_MS, Pricing
from torch_eqsat.egraph.session import Snapshot
from torch_eqsat.extract import Choices, ExtractionProblem
from torch_eqsat.extract.problem import build_problem
from torch_eqsat.ir.term import Node, TermGraph
from torch_eqsat.ir.types import TensorType


@dataclass(frozen=True, slots=True)
class Task:
    """A term graph to optimize. ``parts`` are, for ``fx`` terms, the terms of the language they stand for."""

    graph: TermGraph
    parts: Mapping[int, tuple[int, ...]]


@dataclass
class Program:
    """A chosen program: ``graph`` with the task's roots in order, ``origin[i]`` the captured term that has the value
    of its node i or -1, ``cost`` in ms, and how many of its e-nodes each law made."""

    graph: TermGraph
    origin: list[int]
    cost: float
    laws: Counter[str] = field(default_factory=Counter)


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
            if term < loaded and self.task.graph.nodes[term].op in ("fx", "input"):
                choices.setdefault(self.dense[owner], index)
        return choices

    def problem(self, pricing: Pricing) -> ExtractionProblem:
        """The extraction problem at today's prices."""
        part_prices = self._part_prices(pricing)
        rows = []
        for index, (node, owner) in enumerate(zip(self.snapshot.nodes, self.snapshot.classes, strict=True)):
            cost = part_prices.get(self.snapshot.terms[index])
            if cost is None:
                cost = self._price(pricing, node, owner) + NODE_MS + REWRITTEN_MS
            rows.append((self.dense[owner], tuple(self.dense[c] for c in node.children), cost))
        return build_problem(rows, self.roots, len(self.class_ids))

    def _price(self, pricing: Pricing, node: Node, owner: int) -> float:
        types, constants = self.snapshot.types, self.snapshot.constant
        operands = [t for c in node.children if (t := types[c]) is not None]
        result = types[owner]
        if result is None or len(operands) != len(node.children):
            return 0.0
        if node.op == "fx":
            return pricing.opaque(operands, result)
        return pricing.price(node, operands, result, [constants[c] for c in node.children], constants[owner])

    def _part_prices(self, pricing: Pricing) -> dict[int, float]:
        """Prices of captured operators, the sum of what they mean; by term."""
        graph = self.task.graph
        prices = {}
        for term, parts in self.task.parts.items():
            total = NODE_MS
            for part in parts:
                node, result = graph.nodes[part], graph.types[part]
                operands = [t for c in node.children if (t := graph.types[c]) is not None]
                if result is not None and len(operands) == len(node.children):
                    constants = [graph.constant[c] for c in node.children]
                    total += pricing.price(node, operands, result, constants, graph.constant[part])
            prices[term] = total
        return prices

    def program(self, choices: Choices, cost: float) -> Program:
        """The chosen e-nodes as a term graph."""
        graph, laws = TermGraph(), Counter[str]()
        origin: list[int] = []
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
                origin.append(class_id if class_id < len(self.task.graph) else -1)
                if law := self.snapshot.laws[chosen]:
                    laws[law] += 1
        graph.roots = [index_of[root] for root in self.roots]
        return Program(graph, origin, cost, laws)

    def _type(self, class_id: int) -> TensorType | None:
        return self.snapshot.types[class_id]


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
