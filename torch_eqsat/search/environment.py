"""What a search strategy acts on: an e-graph, actions (batches of laws), a cost, and limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch_eqsat.cost.model import CostModel, Missing
from torch_eqsat.egraph.egraph import Applied, EGraph
from torch_eqsat.egraph.workshop import Workshop
from torch_eqsat.extract.extract import extract
from torch_eqsat.extract.greedy import greedy
from torch_eqsat.ir.program import Program, Task, restarted
from torch_eqsat.laws.assumptions import GRANTED
from torch_eqsat.laws.law import Law
from torch_eqsat.search.actions import Action
from torch_eqsat.search.extractable import Extractable
from torch_eqsat.search.hints import Hint
from torch_eqsat.search.limits import Limits
from torch_eqsat.search.parameters import SearchParameters


@dataclass
class Level:
    """Where a search is: a task (the captured one, or one restarted from a program), its e-graph, and how many pushes
    deep."""

    task: Task
    egraph: EGraph
    digest: str
    depth: int = 0


@dataclass
class Environment:
    """One task's e-graph, and those of programs found for it. ``best`` is the best program seen at any moment. ``work``
    counts the e-nodes of the e-graph at each application of laws and each extraction: it grows as the time does, and is
    equal in every process."""

    task: Task
    laws: Sequence[Law]
    pricing: CostModel
    limits: Limits
    seed: int = 0
    on_best: Callable[[Environment], None] | None = None
    """Called whenever ``best`` changes."""
    granted: frozenset[str] = GRANTED
    """The assumptions that laws may make without proof."""
    parameters: SearchParameters = SearchParameters()
    workshop: Workshop | None = None
    """Where the e-graphs take their engines from; without one, from a workshop of their own."""
    hint: Hint | None = None
    """What made the best program of a graph that is equal up to sizes."""
    started: float = field(default_factory=time.monotonic)
    curve: list[tuple[float, float]] = field(default_factory=list)
    """The cost of ``best`` (ms) over seconds."""
    growth: list[tuple[float, int]] = field(default_factory=list)
    """The size of the e-graph (e-nodes) over seconds."""

    def __post_init__(self) -> None:
        self.deadline = self.started + self.limits.seconds
        self.shop = Workshop() if self.workshop is None else self.workshop
        self.missing: Missing = {}  # kernels whose times prices would have needed
        self._normal = [law for law in self.laws if law.normalises]
        self._loaded: dict[str, EGraph] = {}
        self._extracted: dict[tuple[str, int, bool], Program] = {}
        self.node_limit = self.limits.nodes
        egraph = EGraph(self.laws, self.node_limit, self.granted, self.shop)
        egraph.load(self.task.graph)
        self._levels = [Level(self.task, egraph, self.task.graph.digest())]
        self.largest_nodes = egraph.size
        self.work = 0
        self.best_extractable = Extractable(self.task, egraph.snapshot())
        self.first_extractable: Extractable | None = None
        self.best: Program = self._original(self.best_extractable)
        self.base_cost = self.best.cost
        self.lower_bound = 0.0
        self._note(self.best.cost)
        self._normalise(egraph)

    @property
    def egraph(self) -> EGraph:
        """The e-graph of the present level."""
        return self._levels[-1].egraph

    @property
    def state(self) -> tuple[str, int]:
        """What tells the present state from others: equal for equal e-graphs of one task."""
        return self._levels[-1].digest, self.egraph.content

    @property
    def out_of_time(self) -> bool:
        """Whether the limit of work is reached, or that of time less the seconds that reading the e-graph takes."""
        reading = self.parameters.reading_seconds * self.egraph.size
        return self.work > self.limits.work or time.monotonic() > self.deadline - reading

    @property
    def seconds_left(self) -> float:
        """The seconds until the deadline, at least 0."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def grace(self) -> float:
        """The seconds beyond the time in which an e-graph that took all of it to grow is still read."""
        return self.parameters.grace(self.limits.seconds)

    def close(self, *, whole: bool = True) -> None:
        """Give all e-graphs up, which are not ``whole`` if an exception left one half way; what was found stays."""
        for egraph in [*(level.egraph for level in self._levels), *self._loaded.values()]:
            egraph.close(whole=whole)
        if self.workshop is None:
            self.shop.close()

    def _original(self, extractable: Extractable) -> Program:
        problem = extractable.problem(self.pricing, self.missing)
        found = extract(problem, incumbent=extractable.original(), deadline=0.0)
        return extractable.program(found.choices, found.cost)

    def _note(self, cost: float) -> None:
        self.curve.append((time.monotonic() - self.started, cost))

    def narrow(self, nodes: int) -> None:
        """Lower the limit of nodes of all e-graphs from now on."""
        self.node_limit = min(self.node_limit, nodes)
        for egraph in [*(level.egraph for level in self._levels), *self._loaded.values()]:
            egraph.limit = self.node_limit

    # Moving

    def push(self) -> None:
        """Remember the present state."""
        self.egraph.push()
        self._levels[-1].depth += 1

    def pop(self) -> None:
        """Go back to the state of the last push, out of all e-graphs entered since."""
        while not self._levels[-1].depth:
            self._leave()
        self.egraph.pop()
        self._levels[-1].depth -= 1

    def step(self, action: Action, *, fair: bool = False) -> tuple[bool, bool]:
        """Apply an action, then normalise; whether anything changed, and whether the node limit cut it short."""
        step = self._apply(self.egraph, action.laws, fair=fair)
        truncated = step.truncated or (bool(step.fired) and self._normalise(self.egraph))
        self.largest_nodes = max(self.largest_nodes, self.egraph.size)
        self.growth.append((time.monotonic() - self.started, self.egraph.size))
        return bool(step.fired), truncated

    def _apply(self, egraph: EGraph, laws: Sequence[Law], *, fair: bool = False) -> Applied:
        step = egraph.apply(laws, fair=fair)
        self.work += step.nodes
        return step

    def _normalise(self, egraph: EGraph) -> bool:
        """Apply the laws that normalise until they have nothing to do; whether the node limit cut this short."""
        while self._normal and not self.out_of_time:
            step = self._apply(egraph, self._normal)
            if step.truncated or not step.fired:
                return step.truncated
        return False

    def rebase(self) -> bool:
        """Enter a new, small e-graph: that of the cheapest program of the present one. Whether that is another program
        than the one that the present e-graph began with. The `pop` of an earlier push leads out of it."""
        level = self._levels[-1]
        task = restarted(level.task, self._extract(simple=False))
        if task.graph.digest() == level.digest:
            return False
        self.enter(task)
        return True

    def enter_best(self) -> None:
        """Enter the e-graph of the best program so far, as by :meth:`enter`."""
        self.enter(restarted(self.best_extractable.task, self.best))

    def enter(self, task: Task) -> None:
        """Enter the e-graph of a task that was restarted from a program. The `pop` of an earlier push leads out."""
        digest = task.graph.digest()
        egraph = self._loaded.pop(digest, None)
        if egraph is None:
            egraph = EGraph(self.laws, self.node_limit, self.granted, self.shop)
            egraph.load(task.graph)
            self._normalise(egraph)
        egraph.push()
        self._levels.append(Level(task, egraph, digest))
        self.growth.append((time.monotonic() - self.started, egraph.size))

    def _leave(self) -> None:
        """Leave an e-graph, which stays loaded as it was when entered, for a while."""
        level = self._levels.pop()
        level.egraph.pop()
        self._loaded[level.digest] = level.egraph
        if len(self._loaded) > self.parameters.loaded_egraphs:
            self._loaded.pop(next(iter(self._loaded))).close()

    # Extraction

    def evaluate(self, *, simple: bool = False) -> float:
        """The cost (ms) of the best program in the present e-graph; keeps it if it is the best so far.

        ``simple`` extracts greedily, one e-class at a time, and does not see joint choices.
        """
        return self._extract(simple).cost

    def _extract(self, simple: bool) -> Program:
        key = (*self.state, simple)
        program = self._extracted.get(key)
        if program is None:
            extractable = self.extractable()
            self.work += self.parameters.extraction_work * self.egraph.size
            problem = extractable.problem(self.pricing, self.missing)
            incumbent = greedy(problem) if simple else extractable.original()
            flips = self.parameters.flips_per_node * len(problem.node_cost)
            deadline = 0.0 if simple else self.deadline + self.grace
            found = extract(problem, incumbent=incumbent, deadline=deadline, seed=self.seed, most_flips=flips)
            extractable.found = found.choices
            program = self._extracted[key] = extractable.program(found.choices, found.cost)
            self.keep(program, extractable)
        return program

    def extractable(self) -> Extractable:
        """The present e-graph, ready to be priced."""
        return Extractable(self._levels[-1].task, self.egraph.snapshot())

    def keep(self, program: Program, extractable: Extractable) -> None:
        """Remember a program, and the e-graph that it is from, if it is the best so far."""
        if self.first_extractable is None:
            self.first_extractable = extractable
        if program.cost < self.best.cost:
            self.best, self.best_extractable = program, extractable
            self._note(program.cost)
            if self.on_best is not None:
                self.on_best(self)

    def extractables(self) -> tuple[Extractable, ...]:
        """The e-graph of the best program, and the first that was grown: prices may still be estimates, by which other
        programs of that one look worse than they are (the gates of a cell, merged: 0.18 ms, were left at 0.23 ms)."""
        first = self.first_extractable
        return (self.best_extractable,) if first in (None, self.best_extractable) else (self.best_extractable, first)

    def finish(self) -> None:
        """Extract exactly from the present e-graph and from that of the best program, if the limits grant time for it;
        sets ``lower_bound`` (ms), that of the programs of the latter."""
        if self.limits.exact_seconds > 0:
            present = self.extractable()
            for extractable in dict.fromkeys((present, self.best_extractable)):
                leisure = self.parameters.leisure_seconds
                found = extractable.extract(self.pricing, self.seed, self.limits.exact_seconds, leisure)
                self.keep(extractable.program(found.choices, found.cost), extractable)
                self.lower_bound = found.lower_bound
