"""What a search strategy acts on: an e-graph, actions (batches of laws), a cost, and limits."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.egraph.session import Session
from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.extract import extract
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.rules.law import Law
from torch_eqsat.search.program import Extractable, Program, Task

# An e-graph that took the whole time to grow still has to be read: extraction takes about 0.1 s per 1,000 e-nodes.
EVALUATION_SECONDS = 2.0
REPRICE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Action:
    """A batch of laws that are applied together, once."""

    name: str
    laws: tuple[Law, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """``nodes`` bounds the e-graph (e-nodes), ``seconds`` the search, ``simulations`` the playouts."""

    nodes: int = 20_000
    seconds: float = 20.0
    simulations: int = 64


def actions_of(laws: Sequence[Law]) -> list[Action]:
    """All laws at once, each family, each law."""
    families = dict.fromkeys(law.family for law in laws)
    batches = [Action("everything", tuple(laws))]
    batches += [Action(family, tuple(law for law in laws if law.family == family)) for family in families]
    return batches + [Action(law.name, (law,)) for law in laws]


@dataclass
class Environment:
    """One task's e-graph. ``best`` is the best program seen at any moment, ``curve`` its cost (ms) over seconds."""

    task: Task
    laws: Sequence[Law]
    pricing: Pricing
    limits: Limits
    seed: int = 0
    started: float = field(default_factory=time.monotonic)
    curve: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.deadline = self.started + self.limits.seconds
        self.session = Session(self.laws, self.limits.nodes)
        self.session.load(self.task.graph)
        loaded = self.session.snapshot()
        self.largest_nodes = self.session.size
        self.loaded_extractable = self.best_extractable = Extractable(self.task, loaded)
        self.best: Program = self._original(self.best_extractable)
        self.base_cost = self.best.cost
        self.lower_bound = 0.0
        self._note(self.best.cost)
        self._normalise()

    def _original(self, extractable: Extractable) -> Program:
        problem = extractable.problem(self.pricing)
        found = extract(problem, incumbent=extractable.original(), deadline=0.0)
        return extractable.program(found.choices, found.cost)

    def _note(self, cost: float) -> None:
        self.curve.append((time.monotonic() - self.started, cost))

    @property
    def out_of_time(self) -> bool:
        return time.monotonic() > self.deadline

    def step(self, action: Action) -> tuple[bool, bool]:
        """Apply an action, then normalise; whether anything changed, and whether the node limit cut it short."""
        step = self.session.apply(action.laws)
        truncated = step.truncated or (bool(step.fired) and self._normalise())
        self.largest_nodes = max(self.largest_nodes, self.session.size)
        return bool(step.fired), truncated

    def _normalise(self) -> bool:
        """Apply the laws that normalise until they have nothing to do; whether the node limit cut this short."""
        laws = [law for law in self.laws if law.normalises]
        while laws and not self.out_of_time:
            step = self.session.apply(laws)
            if step.truncated or not step.fired:
                return step.truncated
        return False

    def evaluate(self) -> float:
        """The cost (ms) of the best program in the present e-graph; keeps it if it is the best so far."""
        extractable = Extractable(self.task, self.session.snapshot())
        problem = extractable.problem(self.pricing)
        deadline = max(self.deadline, time.monotonic() + EVALUATION_SECONDS)
        found = extract(problem, incumbent=extractable.original(), deadline=deadline, seed=self.seed)
        # Prices may still be estimates: the first rewritten e-graph is kept, to be extracted from when they are known.
        if found.cost < self.best.cost or self.best_extractable is self.loaded_extractable:
            self.best = extractable.program(found.choices, found.cost)
            self.best_extractable = extractable
            self._note(found.cost)
        return found.cost

    def reprice(self, milp_seconds: float = 0.0, only_original: bool = False) -> None:
        """Extract again from the e-graph of the best program, at prices that have become known since; with
        ``milp_seconds`` look for the exact optimum too, which gives a lower bound (of this e-graph's programs, ms)."""
        problem = self.best_extractable.problem(self.pricing)
        original = self.best_extractable.original()
        # Of the captured graph as loaded: in the grown e-graph what it computes twice is already one e-class.
        loaded = self.loaded_extractable
        base = extract(loaded.problem(self.pricing), incumbent=loaded.original(), deadline=0.0)
        found = extract(problem, incumbent=original, deadline=0.0)
        if not only_original:
            deadline = time.monotonic() + REPRICE_SECONDS + milp_seconds
            found = extract(
                problem, incumbent=original, deadline=deadline, seed=self.seed, rounds=2, milp_seconds=milp_seconds
            )
        self.base_cost, self.lower_bound = base.cost, found.lower_bound
        self.best = self.best_extractable.program(found.choices, found.cost)
        self._note(found.cost)

    def unmeasured(self) -> tuple[Kernel, ...]:
        """Kernels of the best program whose prices are estimates."""
        graph = self.best.graph
        wanted: dict[str, Kernel] = {}
        for index, node in enumerate(graph.nodes):
            types = [t for c in node.children if (t := graph.types[c]) is not None]
            heavy = "heavy" in OPERATORS[node.op].traits and len(types) == len(node.children)
            if not heavy or (self.pricing.frozen and graph.constant[index]):
                continue
            with contextlib.suppress(TypeMismatchError):
                kernel = self.pricing.kernel_of(node, types, [graph.constant[c] for c in node.children])
                if kernel.key not in self.pricing.measured:
                    wanted[kernel.key] = kernel
        return tuple(wanted.values())
