"""Greedy extraction with exact costs of shared parts (DAG costs), one visit of each e-node.

E-classes are settled in order of increasing cost, as in Knuth's generalisation of Dijkstra's algorithm. The
computations of an e-node never cost less than those of one of its operands, so the cheapest unsettled e-class is final.
A chosen e-node therefore uses only e-classes settled before it, and the choices cannot form a cycle.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torch_eqsat.extract.problem import Choices, ExtractionProblem, NoExtractionError, needed_classes, restrict
from torch_eqsat.extract.reduce import node_users

# Above this many new members, one pass of numpy over the whole set is faster than taking the members one by one.
_FEW_MEMBERS = 24


@dataclass(frozen=True, slots=True)
class GreedyResult:
    """The greedy choice of every e-class that can be computed at all, in the order in which they were settled."""

    choices: Choices
    """e-class -> e-node, for all computable e-classes, operands before their users."""
    added_cost: dict[int, float]
    """e-class -> cost in ms of what it needs beyond the incumbent (beyond nothing, without one)."""


class _CostSets:
    """Sets of e-classes as the bits of one integer each, with the cost of their members."""

    def __init__(self) -> None:
        self.members: dict[int, int] = {}
        self._bit_cost: list[float] = []
        self._array: NDArray[np.float64] = np.empty(0)

    def settle(self, owner: int, children: tuple[int, ...], own_cost: float) -> None:
        """Record that e-class ``owner`` is computed from ``children`` by an e-node of ``own_cost`` ms."""
        members = 1 << len(self._bit_cost)
        for child in children:
            members |= self.members.get(child, 0)
        self.members[owner] = members
        self._bit_cost.append(own_cost)

    def union_cost(self, children: tuple[int, ...], cost_of: dict[int, float]) -> float:
        """Cost in ms of the union of the children's sets, built up from the most expensive one."""
        ranked = sorted((child for child in children if child in self.members), key=cost_of.__getitem__, reverse=True)
        if not ranked:
            return 0.0
        cost, members = cost_of[ranked[0]], self.members[ranked[0]]
        for child in ranked[1:]:
            other = self.members[child]
            new = other & ~members
            if new:
                cost += self._cost(new)
                members |= other
        return cost

    def _cost(self, members: int) -> float:
        if members.bit_count() > _FEW_MEMBERS:
            return self._cost_of_many(members)
        total = 0.0
        while members:
            top = members.bit_length() - 1
            total += self._bit_cost[top]
            members ^= 1 << top
        return total

    def _cost_of_many(self, members: int) -> float:
        size = members.bit_length()
        if len(self._array) < size:
            self._array = np.array(self._bit_cost)
        packed = np.frombuffer(members.to_bytes((size + 7) // 8, "little"), np.uint8)
        mask = np.unpackbits(packed, count=size, bitorder="little").view(np.bool_)
        return float(self._array[:size][mask].sum())


def greedy_choices(
    problem: ExtractionProblem, incumbent: Choices | None = None, users: list[list[int]] | None = None
) -> GreedyResult:
    """Choose an e-node for every computable e-class, cheapest DAG cost first.

    E-classes of the incumbent count as paid and keep their e-node. The sets then hold only new e-classes, and stay
    small in deep e-graphs. ``users`` is the result of `node_users`, if already known. Raises InvalidExtractionError if
    the incumbent is not a valid extraction.
    """
    waiting = [len(set(children)) for children in problem.node_children]
    users = node_users(problem) if users is None else users
    sets = _CostSets()
    result = GreedyResult({}, {})
    heap: list[tuple[float, int]] = []  # cost of all that the e-node needs, e-node

    def settled(owner: int) -> None:
        for node in users[owner]:
            waiting[node] -= 1
            if waiting[node] == 0 and problem.node_class[node] not in result.choices:
                offer(node)

    def offer(node: int) -> None:
        children = problem.node_children[node]
        cost = result.added_cost[children[0]] if len(children) == 1 else sets.union_cost(children, result.added_cost)
        heapq.heappush(heap, (cost + problem.node_cost[node], node))

    if incumbent is not None:
        for owner in needed_classes(problem, incumbent):
            result.choices[owner] = incumbent[owner]
            result.added_cost[owner] = 0.0
        for owner in list(result.choices):
            settled(owner)
    for owner, nodes in enumerate(problem.class_nodes):
        if owner not in result.choices:
            for node in nodes:
                if not problem.node_children[node]:
                    offer(node)
    while heap:
        cost, node = heapq.heappop(heap)
        owner = problem.node_class[node]
        if owner not in result.choices:
            result.choices[owner] = node
            result.added_cost[owner] = cost
            sets.settle(owner, problem.node_children[node], problem.node_cost[node])
            settled(owner)
    return result


def greedy(problem: ExtractionProblem) -> Choices:
    """Greedy extraction of the roots; raises NoExtractionError when there is none."""
    result = greedy_choices(problem)
    for root in problem.roots:
        if root not in result.choices:
            raise NoExtractionError(f"root e-class {root} has no computation without a cycle")
    return restrict(problem, result.choices)
