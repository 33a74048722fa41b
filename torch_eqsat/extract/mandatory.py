"""The e-classes that every extraction must compute, and the e-nodes that no better extraction can use.

An e-class is mandatory for another one if every acyclic computation of the latter passes through it. These are the
dominators of graphs in which an e-node needs all of its operands and an e-class needs one of its e-nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torch_eqsat.extract.problem import Choices, ExtractionProblem

_UNKNOWN = -1  # as a set: every e-class
_TOLERANCE = 1e-9  # ms
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class PrunedProblem:
    """The e-nodes that an extraction of lower cost than the incumbent may use, and those of the incumbent."""

    class_nodes: dict[int, list[int]]
    """e-class -> its e-nodes that are left, for the e-classes still reachable; operands tend to come first."""
    mandatory: frozenset[int]
    """The e-classes of every extraction."""


def prune(problem: ExtractionProblem, settled: Choices, incumbent: Choices, incumbent_cost: float) -> PrunedProblem:
    """Remove e-nodes that cannot be used acyclically, or only at too high a cost, until no more are found.

    ``settled`` holds the computable e-classes, operands first; ``incumbent`` is a valid extraction of
    ``incumbent_cost`` ms, whose e-nodes stay.
    """
    class_nodes = _reachable(problem, {owner: problem.class_nodes[owner] for owner in settled})
    kept = set(incumbent.values())
    for _ in range(_ROUNDS):
        sets = _MandatorySets(problem, class_nodes)
        cheap = {
            owner: [
                node for node in nodes if node in kept or sets.bound_with(owner, node) < incumbent_cost - _TOLERANCE
            ]
            for owner, nodes in class_nodes.items()
        }
        before = sum(map(len, class_nodes.values()))
        class_nodes = _reachable(problem, cheap)
        if sum(map(len, class_nodes.values())) == before:
            break
    return PrunedProblem(class_nodes, sets.of_roots())


def mandatory_bound(problem: ExtractionProblem, settled: Choices, incumbent: Choices, incumbent_cost: float) -> float:
    """A lower bound (ms) of all extractions: the cheapest e-nodes of the e-classes that every one of them computes.

    The arguments are those of :func:`prune`. It takes about 50 µs per e-node; linear programs take minutes.
    """
    pruned = prune(problem, settled, incumbent, incumbent_cost)
    least = sum(min(problem.node_cost[node] for node in pruned.class_nodes[owner]) for owner in pruned.mandatory)
    return min(least, incumbent_cost)


def _reachable(problem: ExtractionProblem, class_nodes: dict[int, list[int]]) -> dict[int, list[int]]:
    met = set(problem.roots)
    pending = list(met)
    while pending:
        for node in class_nodes[pending.pop()]:
            for child in problem.node_children[node]:
                if child not in met:
                    met.add(child)
                    pending.append(child)
    return {owner: nodes for owner, nodes in class_nodes.items() if owner in met}


class _MandatorySets:
    """For each e-class the set of its mandatory e-classes, as the bits of an integer."""

    def __init__(self, problem: ExtractionProblem, class_nodes: dict[int, list[int]]) -> None:
        self._problem = problem
        self._owners = list(class_nodes)
        self._bit = {owner: 1 << index for index, owner in enumerate(self._owners)}
        self._of = dict.fromkeys(class_nodes, _UNKNOWN)
        self._least = np.array(
            [min((problem.node_cost[node] for node in nodes), default=0.0) for nodes in class_nodes.values()]
        )
        self._least_of = dict(zip(self._owners, self._least.tolist(), strict=True))
        self._solve(class_nodes)
        self._roots = self._union(problem.roots)
        self._root_cost = self._cost(self._roots)

    def of_roots(self) -> frozenset[int]:
        return frozenset(owner for owner, bit in self._bit.items() if self._roots & bit)

    def bound_with(self, owner: int, node: int) -> float:
        """A lower bound in ms on extractions that use the e-node; infinite when it would need its own e-class."""
        needed = self._union(self._problem.node_children[node])
        bit = self._bit[owner]
        if needed & bit:  # also when an operand has become impossible to compute
            return float("inf")
        own_cost = self._problem.node_cost[node] - (self._least_of[owner] if self._roots & bit else 0.0)
        return self._root_cost + own_cost + self._cost(needed & ~self._roots)

    def _solve(self, class_nodes: dict[int, list[int]]) -> None:
        """Shrink the sets from "everything" to the greatest fixed point, which is exact for acyclic computations."""
        changed = True
        while changed:
            changed = False
            for owner, nodes in class_nodes.items():
                common = _UNKNOWN
                for node in nodes:
                    common &= self._union(self._problem.node_children[node])
                if common != _UNKNOWN:
                    common |= self._bit[owner]
                if common != self._of[owner]:
                    self._of[owner] = common
                    changed = True

    def _union(self, owners: tuple[int, ...]) -> int:
        union = 0
        for owner in owners:
            union |= self._of[owner]
        return union

    def _cost(self, members: int) -> float:
        if not members:
            return 0.0
        size = members.bit_length()
        packed = np.frombuffer(members.to_bytes((size + 7) // 8, "little"), np.uint8)
        mask: NDArray[np.bool_] = np.unpackbits(packed, count=size, bitorder="little").view(np.bool_)
        return float(self._least[:size][mask].sum())
