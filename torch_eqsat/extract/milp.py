"""Exact extraction by mixed-integer linear programming (HiGHS), after pruning around an incumbent.

Every extraction pays for the mandatory e-classes, so a use of one does not link two parts of the problem. The rest of
the problem consists of independent components, such as the blocks of a network, which are solved one at a time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from torch_eqsat.extract.greedy import greedy_choices
from torch_eqsat.extract.landmarks import LandmarkFinder
from torch_eqsat.extract.mandatory import PrunedProblem, prune
from torch_eqsat.extract.problem import Choices, ExtractionProblem, InvalidExtractionError, dag_cost, restrict

_TOLERANCE = 1e-9
# Pruning, setting up a linear program and solving its relaxation take about this many seconds per e-node at best.
_SECONDS_PER_NODE = 4e-5
# In the search for landmarks, an e-node is usable if its value in the fractional solution exceeds the first number, or
# if its cost is at most the second number times that of the dearest e-node. Landmarks without cheap e-nodes raise the
# bound most.
_USABLE = ((0.2, 0.2), (1e-6, 0.02), (0.2, 0.0), (1e-6, 0.0))
_LEAST_VIOLATION = 0.05
# No more landmarks are added when _PATIENCE rounds close less than the part _LEAST_PROGRESS of the gap.
_PATIENCE = 5
_LEAST_PROGRESS = 0.02
_INFEASIBLE = 2  # status codes of scipy.optimize.milp
_OPTIMAL = 0


@dataclass(frozen=True, slots=True)
class MilpResult:
    """The better of the incumbent and the extraction found, its cost, and a lower bound on all extractions (in ms)."""

    choices: Choices
    cost: float
    lower_bound: float


def improve_by_milp(problem: ExtractionProblem, incumbent: Choices, seconds: float) -> MilpResult:
    """Search for an extraction better than the incumbent for about ``seconds``; exact when time allows.

    The children of each e-node must be distinct, as in a reduced problem.
    """
    deadline = time.monotonic() + seconds
    cost = dag_cost(problem, incumbent)
    if sum(map(len, problem.class_nodes)) * _SECONDS_PER_NODE > seconds:
        return MilpResult(incumbent, cost, 0.0)
    settled = greedy_choices(problem).choices
    choices = restrict(problem, incumbent)
    pruned = prune(problem, settled, choices, cost)
    lower_bound = 0.0
    components = _components(problem, pruned)
    for index, component in enumerate(components):
        # Components come smallest first; the time that one leaves unused is shared by the following ones.
        share = (deadline - time.monotonic()) / (len(components) - index)
        program = _Program(problem, pruned, component)
        found, bound = program.solve(sum(problem.node_cost[choices[c]] for c in component if c in choices), share)
        lower_bound += bound
        if found is not None:
            choices = _adopt(problem, choices, component, found)
    return MilpResult(choices, dag_cost(problem, choices), lower_bound)


def _adopt(problem: ExtractionProblem, choices: Choices, component: list[int], found: Choices) -> Choices:
    """Replace the choices of a component. Cycles do not cross components, so this closes none."""
    inside = set(component)
    combined = {owner: node for owner, node in choices.items() if owner not in inside} | found
    try:
        combined = restrict(problem, combined)
    except InvalidExtractionError:  # possible within the solver's tolerances
        return choices
    return combined if dag_cost(problem, combined) < dag_cost(problem, choices) else choices


def _components(problem: ExtractionProblem, pruned: PrunedProblem) -> list[list[int]]:
    """Partition the e-classes into independent parts, smallest first.

    An e-class is in one part with its users, unless it is mandatory, and with the e-classes in a cycle with it.
    """
    index = {owner: position for position, owner in enumerate(pruned.class_nodes)}
    uses = {
        (owner, child)
        for owner, nodes in pruned.class_nodes.items()
        for node in nodes
        for child in problem.node_children[node]
    }
    edges = [(index[owner], index[child]) for owner, child in uses]
    cycles = _label_components(len(index), edges, "strong")
    linked = [
        (index[owner], index[child])
        for owner, child in uses
        if child not in pruned.mandatory or cycles[index[owner]] == cycles[index[child]]
    ]
    labels = _label_components(len(index), linked, "weak")
    components: dict[int, list[int]] = {}
    for owner, label in zip(index, labels, strict=True):
        components.setdefault(label, []).append(owner)
    return sorted(components.values(), key=len)


def _label_components(size: int, edges: list[tuple[int, int]], connection: str) -> list[int]:
    rows, columns = zip(*edges, strict=True) if edges else ((), ())
    graph = coo_array((np.ones(len(edges)), (rows, columns)), shape=(size, size))
    labels: list[int] = connected_components(graph, directed=True, connection=connection)[1].tolist()
    return labels


class _Program:
    """The linear program of one component: a variable per e-node, and one per e-class in a cycle for its place."""

    def __init__(self, problem: ExtractionProblem, pruned: PrunedProblem, component: list[int]) -> None:
        self._problem = problem
        self._mandatory = pruned.mandatory
        self._class_nodes = {owner: pruned.class_nodes[owner] for owner in component}
        self._nodes = [node for nodes in self._class_nodes.values() for node in nodes]
        self._variable = {node: index for index, node in enumerate(self._nodes)}
        self._rows: list[tuple[dict[int, float], float, float]] = []  # coefficients by variable, lower, upper
        self._place: dict[int, int] = {}  # e-class -> variable of its place in the order of computation
        self._place_limit: list[float] = []
        self._users = self._uses()

    def solve(self, cutoff: float, seconds: float) -> tuple[Choices | None, float]:
        """Find choices of lower cost than the cutoff (ms); returns them, if any, and a lower bound (ms)."""
        least = sum(
            min(self._problem.node_cost[node] for node in nodes)
            for owner, nodes in self._class_nodes.items()
            if owner in self._mandatory
        )
        if least >= cutoff - _TOLERANCE:
            return None, cutoff
        if len(self._nodes) * _SECONDS_PER_NODE > seconds:
            return None, least
        deadline = time.monotonic() + seconds
        self._require()
        costs = {self._variable[node]: self._problem.node_cost[node] for node in self._nodes}
        self._rows.append((costs, -np.inf, cutoff - _TOLERANCE))
        return self._run(cutoff, least, deadline)

    def _run(self, cutoff: float, least: float, deadline: float) -> tuple[Choices | None, float]:
        """Tighten the relaxation by landmarks, which raise the bound more than places in an order, then branch."""
        finder = LandmarkFinder(self._problem, self._class_nodes)
        # At most half of the time goes into the relaxation.
        halfway = time.monotonic() + (deadline - time.monotonic()) / 2
        bounds: list[float] = []
        while (left := halfway - time.monotonic()) > 0:
            relaxation = self._call_solver(0, left)
            if relaxation.status == _INFEASIBLE:
                return None, cutoff
            if relaxation.status != _OPTIMAL:
                break
            least = max(least, float(relaxation.fun))
            bounds.append(least)
            stalled = len(bounds) > _PATIENCE and least - bounds[-1 - _PATIENCE] < _LEAST_PROGRESS * (cutoff - least)
            if stalled or not self._add_landmarks(finder, relaxation.x):
                break
        self._forbid_cycles()
        result = self._call_solver(1, max(deadline - time.monotonic(), 0.01))
        if result.status == _INFEASIBLE:
            return None, cutoff
        if result.mip_dual_bound is not None:
            least = max(least, float(result.mip_dual_bound))
        if result.x is None:
            return None, min(least, cutoff)
        chosen = {self._problem.node_class[node]: node for node in self._nodes if result.x[self._variable[node]] > 0.5}
        return chosen, min(least, cutoff)

    def _add_landmarks(self, finder: LandmarkFinder, values: NDArray[np.float64]) -> bool:
        """Add the landmarks that a solution of the relaxation violates; returns whether there were any."""
        known = len(self._rows)
        amount = {
            owner: sum(values[self._variable[node]] for node in nodes) for owner, nodes in self._class_nodes.items()
        }
        cost = self._problem.node_cost
        dearest = max(cost[node] for node in self._nodes)
        for threshold, cheap in _USABLE:
            usable = {
                node
                for node in self._nodes
                if values[self._variable[node]] > threshold or cost[node] <= cheap * dearest
            }
            computed = finder.computable(usable)
            met: set[frozenset[int]] = set()
            for owner, used in amount.items():
                if used <= _LEAST_VIOLATION or owner in computed:
                    continue
                landmark = frozenset(finder.landmark(owner, computed))
                # One row per landmark and round: rows for other e-classes with the same landmark are left out.
                if landmark not in met and sum(values[self._variable[n]] for n in landmark) < used - _LEAST_VIOLATION:
                    met.add(landmark)
                    row = {self._variable[node]: 1.0 for node in landmark}
                    for node in self._class_nodes[owner]:
                        row[self._variable[node]] = row.get(self._variable[node], 0.0) - 1.0
                    self._rows.append((row, 0.0, np.inf))
        return len(self._rows) > known

    def _call_solver(self, integral: int, seconds: float) -> OptimizeResult:
        size = len(self._nodes) + len(self._place)
        objective = np.zeros(size)
        objective[: len(self._nodes)] = [self._problem.node_cost[node] for node in self._nodes]
        entries = [(row, *term) for row, (terms, _, _) in enumerate(self._rows) for term in terms.items()]
        rows, columns, values = zip(*entries, strict=True)
        matrix = coo_array((values, (rows, columns)), shape=(len(self._rows), size)).tocsr()
        integrality = np.zeros(size)
        integrality[: len(self._nodes)] = integral
        limits = np.concatenate([np.ones(len(self._nodes)), np.array(self._place_limit)])
        return milp(
            objective,
            integrality=integrality,
            bounds=Bounds(0.0, limits),
            constraints=LinearConstraint(matrix, [row[1] for row in self._rows], [row[2] for row in self._rows]),
            options={"time_limit": seconds, "mip_rel_gap": 0.0},
        )

    def _uses(self) -> dict[tuple[int, int], list[int]]:
        """(e-class, operand e-class) -> the variables of the e-nodes of the former that need the latter."""
        uses: dict[tuple[int, int], list[int]] = {}
        for owner, nodes in self._class_nodes.items():
            for node in nodes:
                for child in self._problem.node_children[node]:
                    uses.setdefault((owner, child), []).append(self._variable[node])
        return uses

    def _require(self) -> None:
        """Mandatory e-classes have one e-node, others at most one, and at least one when they are used."""
        for owner, nodes in self._class_nodes.items():
            one = float(owner in self._mandatory)
            self._rows.append(({self._variable[node]: 1.0 for node in nodes}, one, 1.0))
        for (_, child), users in self._users.items():
            if child not in self._mandatory:
                row = dict.fromkeys(users, -1.0)
                for node in self._class_nodes[child]:
                    row[self._variable[node]] = row.get(self._variable[node], 0.0) + 1.0
                self._rows.append((row, 0.0, np.inf))

    def _forbid_cycles(self) -> None:
        """Within each strongly connected component, an e-class has a later place than the e-classes it uses."""
        index = {owner: position for position, owner in enumerate(self._class_nodes)}
        inner = [(owner, child) for owner, child in self._users if child in index]
        labels = _label_components(len(index), [(index[owner], index[child]) for owner, child in inner], "strong")
        sizes = np.bincount(labels)
        for owner, child in inner:
            label = labels[index[owner]]
            if label != labels[index[child]]:
                continue
            users, size = self._users[owner, child], float(sizes[label])
            later, earlier = self._place_of(owner, size), self._place_of(child, size)
            # place(owner) >= place(child) + 1 if one of the users is chosen; no constraint otherwise
            self._rows.append(({later: 1.0, earlier: -1.0} | dict.fromkeys(users, -size), 1.0 - size, np.inf))
            back = self._users.get((child, owner))
            if back is not None and owner < child:
                self._rows.append((dict.fromkeys([*users, *back], 1.0), -np.inf, 1.0))

    def _place_of(self, owner: int, size: float) -> int:
        if owner not in self._place:
            self._place[owner] = len(self._nodes) + len(self._place)
            self._place_limit.append(size - 1.0)
        return self._place[owner]
