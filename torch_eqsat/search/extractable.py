"""From an e-graph to an extraction problem and back to a program (a term graph)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from torch_eqsat.cost.inductor.copies import VECTOR, contiguous, copied_run
from torch_eqsat.cost.inductor.fusion import ABSORBABLE, Stage, stage_of
from torch_eqsat.cost.model import ALONE, CostModel, Missing, TermContext
from torch_eqsat.cost.programs import NODE_MS, REWRITTEN_MS, captured_prices
from torch_eqsat.egraph.snapshot import Snapshot
from torch_eqsat.extract.extract import Extraction, extract
from torch_eqsat.extract.problem import Choices, ExtractionProblem, build_problem, dag_cost
from torch_eqsat.ir.program import Program, Task
from torch_eqsat.ir.term import Node, TermGraph
from torch_eqsat.ir.types import TensorType
from torch_eqsat.search.parameters import SearchParameters

ABSORBED, COPIED, SHUFFLED = TermContext(absorbed=True), TermContext(copies=1), TermContext(shuffled=True)


class Extractable:
    """A snapshot of a task's e-graph, ready to be priced (again and again, as more kernels are measured)."""

    def __init__(self, task: Task, snapshot: Snapshot) -> None:
        self.task = task
        self.snapshot = snapshot
        self.class_ids = sorted(snapshot.types)
        self.dense = {c: i for i, c in enumerate(self.class_ids)}
        self.roots = tuple(self.dense[snapshot.find(root)] for root in task.graph.roots)
        self.found: Choices | None = None  # the best known, at the prices of its time

    def original(self) -> Choices:
        """The program as captured: of each e-class its first captured e-node, so operands are always earlier terms."""
        loaded = len(self.task.graph)
        choices: Choices = {}
        for index, (owner, term) in enumerate(zip(self.snapshot.classes, self.snapshot.terms, strict=True)):
            if term < loaded and self.task.in_program(term):
                choices.setdefault(self.dense[owner], index)
        return choices

    def problem(self, pricing: CostModel, missing: Missing | None = None) -> ExtractionProblem:
        """The extraction problem at today's prices; ``missing`` gets the kernels that lack one."""
        parts = captured_prices(self.task, pricing, missing)
        contexts = dict.fromkeys(absorbed_rows(self.snapshot), ABSORBED) if pricing.epilogues else {}
        contexts |= shuffled_rows(self.snapshot)
        rows = []
        for index, (node, owner) in enumerate(zip(self.snapshot.nodes, self.snapshot.classes, strict=True)):
            meant = self.task.parts.get(self.snapshot.terms[index])
            if meant is None:
                cost = self._price(pricing, node, owner, contexts.get(index, ALONE), missing) + NODE_MS + REWRITTEN_MS
            else:
                cost = NODE_MS + sum(map(parts, meant))
            rows.append((self.dense[owner], tuple(self.dense[c] for c in node.children), cost))
        return build_problem(rows, self.roots, len(self.class_ids))

    def _price(
        self, pricing: CostModel, node: Node, owner: int, context: TermContext, missing: Missing | None
    ) -> float:
        types, constants = self.snapshot.types, self.snapshot.constant
        operands = [t for c in node.children if (t := types[c]) is not None]
        flags = [constants[c] for c in node.children]
        return pricing.price(node, operands, types[owner], flags, constants[owner], context, missing)

    def extract(
        self,
        pricing: CostModel,
        seed: int = 0,
        milp_seconds: float = 0.0,
        leisure_seconds: float = SearchParameters().leisure_seconds,
        missing: Missing | None = None,
        rounds: int = 2,
    ) -> Extraction:
        """The cheapest program at today's prices, found in ``leisure_seconds``, with ``rounds`` of annealing that bring
        nothing at its end; with ``milp_seconds`` exactly, if that is enough, and with a lower bound (of this e-graph's
        programs, ms)."""
        deadline = time.monotonic() + leisure_seconds + milp_seconds
        problem, incumbent = self.problem(pricing, missing), self.original()
        if self.found is not None and dag_cost(problem, self.found) < dag_cost(problem, incumbent):
            incumbent = self.found
        found = extract(
            problem, incumbent=incumbent, deadline=deadline, seed=seed, rounds=rounds, milp_seconds=milp_seconds
        )
        self.found = found.choices
        return found

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


def absorbed_rows(snapshot: Snapshot) -> set[int]:
    """The e-nodes that a convolution before them may take in, by index.

    Which e-node of an operand is chosen, and how many use it, is not known yet: of each e-class the one counts that
    takes in most, and every user is taken to be the only one.
    """
    types, constant = snapshot.types, snapshot.constant
    rows = [i for i, node in enumerate(snapshot.nodes) if node.op in ABSORBABLE or node.op == "conv"]
    stages: dict[int, Stage] = {}
    absorbed: set[int] = set()
    grows = True
    while grows:
        grows = False
        for index in rows:
            node, owner = snapshot.nodes[index], snapshot.classes[index]
            before = [stages.get(c, Stage.NONE) for c in node.children]
            if node.op != "conv" and not any(before):
                continue
            stage = stage_of(node, [types[c] for c in node.children], [constant[c] for c in node.children], before)
            if stage and node.op != "conv":
                absorbed.add(index)
            if stage > stages.get(owner, Stage.NONE):
                stages[owner] = stage
                grows = True
    return absorbed


def shuffled_rows(snapshot: Snapshot) -> dict[int, TermContext]:
    """The views, by index, that are copied because their operand is a permutation, whichever it is of those known."""
    permutations: dict[int, list[Node]] = {}
    for node, owner in zip(snapshot.nodes, snapshot.classes, strict=True):
        if node.op == "permute":
            permutations.setdefault(owner, []).append(node)
    found = {}
    for index, node in enumerate(snapshot.nodes):
        if node.op == "view" and (operands := permutations.get(node.children[0])):
            runs = [_run(snapshot, operand, node["shape"]) for operand in operands]
            if run := 0 if 0 in runs else max(runs):
                found[index] = COPIED if run >= VECTOR else SHUFFLED
    return found


def _run(snapshot: Snapshot, permuted: Node, shape: Sequence[int]) -> int:
    source = snapshot.types[permuted.children[0]]
    assert source is not None
    strides = contiguous(source.shape)
    dims = permuted["dims"]
    return copied_run([source.shape[d] for d in dims], [strides[d] for d in dims], shape)
