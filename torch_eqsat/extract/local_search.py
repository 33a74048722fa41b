"""Local search for extractions: flips of one e-class, joint flips of all users of an e-class, annealing.

An e-class outside the extraction may pay off only if several users turn to it together, such as one wide matrix product
of which each user takes a slice, instead of three products. No choice within a single e-class finds this.
"""

from __future__ import annotations

import heapq
import math
import time
from dataclasses import dataclass
from random import Random

from torch_eqsat.extract.greedy import greedy_choices
from torch_eqsat.extract.problem import Choices, ExtractionProblem
from torch_eqsat.extract.reduce import node_users
from torch_eqsat.extract.solution import Selection

_TOLERANCE = 1e-9  # ms; smaller differences are rounding
_INDIRECT_USERS = 24  # e-classes outside the extraction through which users of a shared e-class are sought
_STEPS_PER_NODE = 4  # length of an annealing round
_TEMPERATURES = (0.1, 0.0003)  # first and last temperature of a round, relative to the cost of the extraction

Flips = tuple[tuple[int, int], ...]
"""E-classes with the e-nodes that they turn to; the last one is in the extraction, and uses those before it."""


@dataclass(frozen=True, slots=True)
class LocalSearchResult:
    """The best extraction found; ``finished`` is False when the deadline ended the search."""

    choices: Choices
    finished: bool


def local_search(
    problem: ExtractionProblem,
    incumbent: Choices,
    *,
    deadline: float | None,
    seed: int,
    rounds: int,
    most_flips: float = math.inf,
) -> LocalSearchResult:
    """Improve an incumbent until no flip helps, then anneal until ``rounds`` rounds in a row gain nothing.

    The children of each e-node must be distinct, as in a reduced problem. ``deadline`` is a time.monotonic() value;
    ``most_flips`` ends the search as well, after as much work in every process.
    """
    search = _LocalSearch(problem, incumbent, deadline, most_flips)
    search.descend()
    best, best_cost = search.selection.choices(), search.selection.cost
    generator = Random(seed)
    fruitless = 0
    while fruitless < rounds and not search.is_late():
        search.anneal(generator)
        search.descend()
        fruitless += 1
        if search.selection.cost < best_cost - _TOLERANCE:
            best, best_cost, fruitless = search.selection.choices(), search.selection.cost, 0
    return LocalSearchResult(best, finished=not search.is_late())


class _LocalSearch:
    def __init__(
        self, problem: ExtractionProblem, incumbent: Choices, deadline: float | None, most_flips: float
    ) -> None:
        self._problem, self._most_flips = problem, most_flips
        self._deadline = float("inf") if deadline is None else deadline
        self._users = node_users(problem)
        self.selection = Selection(problem, greedy_choices(problem, incumbent, self._users).choices, incumbent)
        self._shareable = [
            owner for owner, nodes in enumerate(problem.class_nodes) if nodes and self.selection.chosen[owner] >= 0
        ]
        self._from_scratch: Choices = {}
        self._unsettled = set(self._shareable)  # e-classes of which a single flip may gain
        self._unexamined = list(self._shareable)  # e-classes to which a joint flip may gain
        self._user_classes: dict[int, list[int]] = {}  # e-class -> its possible users when last examined
        self._relief: dict[int, float] = {}  # of e-classes of the extraction as it is while joint flips are examined

    def is_late(self) -> bool:
        return self.selection.flips > self._most_flips or time.monotonic() >= self._deadline

    def descend(self) -> None:
        """Take improving flips, the steepest joint ones first, until there is none or the deadline passes."""
        selection = self.selection
        while not self.is_late():
            before, cost = selection.choices(), selection.cost
            self._flip_single_classes(self._unsettled)
            self._flip_jointly()
            if selection.cost >= cost - _TOLERANCE and not self._unexamined and not self._flip_from_scratch():
                break
            if selection.cost < cost - _TOLERANCE:
                selection.set_defaults(greedy_choices(self._problem, selection.choices(), self._users).choices)
                self._examine_around({owner for owner, _ in before.items() ^ selection.choices().items()})

    def _flip_from_scratch(self) -> bool:
        """Flip single e-classes; the e-classes that they newly need are computed from scratch. Returns whether any
        flipped.

        The cheapest way from the extraction to a needed e-class may pass through the e-class that is to flip, such as a
        transpose of it for its other layout.
        """
        if not self._from_scratch:
            self._from_scratch = greedy_choices(self._problem, None, self._users).choices
        self.selection.set_defaults(self._from_scratch)
        return self._flip_single_classes(None)

    def anneal(self, generator: Random) -> None:
        """One round of random flips, single and joint; ever fewer of those that raise the cost are accepted."""
        before = self.selection.choices()
        first, last = (self.selection.cost * temperature for temperature in _TEMPERATURES)
        steps = _STEPS_PER_NODE * sum(map(len, self._problem.class_nodes))
        for step in range(steps):
            if step % 64 == 0 and self.is_late():
                break
            temperature = first * (last / first) ** (step / steps) if first > 0 else 0.0
            mark = self.selection.mark()
            if self._random_flip(generator, temperature):
                self.selection.keep()
            else:
                self.selection.undo(mark)
        self.selection.commit()
        self._examine_around({owner for owner, _ in before.items() ^ self.selection.choices().items()})

    def _random_flip(self, generator: Random, temperature: float) -> bool:
        """Try a random single or joint flip; returns whether to keep it."""
        selection = self.selection
        tolerated = temperature * generator.expovariate(1.0)
        if generator.random() < 0.5:
            owner = generator.choice(selection.order)
            node = generator.choice(self._problem.class_nodes[owner])
            if node == selection.chosen[owner] or not selection.references[owner]:
                return False
            return selection.flip(owner, node) < tolerated and not selection.closes_cycle(owner)
        shared = generator.choice(self._shareable)
        users = self._possible_users(shared)
        if not users:
            return False
        generator.shuffle(users)
        node = generator.choice(self._problem.class_nodes[shared])
        slack = temperature * generator.expovariate(1.0)
        return self._flip_users(shared, node, users, slack) < tolerated

    def _flip_single_classes(self, candidates: set[int] | None) -> bool:
        """Give each e-class (None: all), users first, its best e-node; returns whether any changed."""
        selection = self.selection
        before = selection.cost
        for owner in reversed(selection.order):
            if candidates is not None and owner not in candidates:
                continue
            if self.is_late():
                break
            best_change, best_node = -_TOLERANCE, None
            for node in self._problem.class_nodes[owner]:
                if node != selection.chosen[owner] and selection.references[owner]:
                    mark = selection.mark()
                    change = selection.flip(owner, node)
                    if change < best_change and not selection.closes_cycle(owner):
                        best_change, best_node = change, node
                    selection.undo(mark)
            if best_node is not None:
                # No commit: users come first, so that all flips lie above, and cycle checks stay local.
                selection.flip(owner, best_node)
        selection.commit()
        return selection.cost < before - _TOLERANCE

    def _flip_jointly(self) -> None:
        """Take the joint flip that saves most, as long as one saves anything.

        The savings are kept in a queue, and each is computed anew when its turn comes.
        """
        queue = [(change, shared) for shared, change in self._joint_savings().items()]
        heapq.heapify(queue)
        while queue and not self.is_late():
            _, shared = heapq.heappop(queue)
            self._relief.clear()
            change, node = self._best_joint_flip(shared)
            if change >= -_TOLERANCE:
                continue
            if queue and change > queue[0][0] + _TOLERANCE:
                heapq.heappush(queue, (change, shared))
                continue
            self._flip_users(shared, node, self._possible_users(shared), _TOLERANCE)
            self.selection.keep()
        self.selection.commit()

    def _joint_savings(self) -> dict[int, float]:
        """The e-classes to which users could turn together with a gain, and the change of cost in ms.

        Stops after half of the remaining time or flips; the other half is for taking the flips found.
        """
        now, made = time.monotonic(), self.selection.flips
        half_time, half_flips = now + (self._deadline - now) / 2, made + (self._most_flips - made) / 2
        savings = {}
        self._relief.clear()
        while self._unexamined and self.selection.flips <= half_flips and time.monotonic() < half_time:
            shared = self._unexamined.pop()
            change, _ = self._best_joint_flip(shared)
            if change < -_TOLERANCE:
                savings[shared] = change
        return savings

    def _examine_around(self, changed: set[int]) -> None:
        """List the e-classes whose flips, single or joint, may gain now that the use of these e-classes has changed."""
        node_children, class_nodes = self._problem.node_children, self._problem.class_nodes
        self._unsettled = changed.union(*(self._neighbours(owner) for owner in changed))
        waiting = set(self._unexamined)
        self._unexamined = [
            shared
            for shared in self._shareable
            if shared in waiting
            or shared in changed
            or not changed.isdisjoint(self._user_classes.get(shared, ()))
            or any(not changed.isdisjoint(node_children[node]) for node in class_nodes[shared])
        ]

    def _neighbours(self, owner: int) -> set[int]:
        """The e-classes that may use the e-class, and those that it may use."""
        problem = self._problem
        neighbours = {problem.node_class[node] for node in self._users[owner]}
        return neighbours.union(*(problem.node_children[node] for node in problem.class_nodes[owner]))

    def _best_joint_flip(self, shared: int) -> tuple[float, int]:
        """The change of cost in ms, and the e-node of the shared e-class, of the best joint flip to it."""
        best = (0.0, -1)
        users = self._possible_users(shared)
        self._user_classes[shared] = [owner for flips in users for owner, _ in flips]
        if any(self._may_gain(*way[-1]) for way in users):
            mark = self.selection.mark()
            for node in self._problem.class_nodes[shared]:
                best = min(best, (self._flip_users(shared, node, users, _TOLERANCE), node))
                self.selection.undo(mark)
        return best

    def _may_gain(self, owner: int, node: int) -> bool:
        """Whether an e-class of the extraction may gain, as the first of several, if it turns to this e-node: what its
        own e-node costs, with all that it alone needs, is the most that this saves."""
        relief = self._relief.get(owner)
        if relief is None:
            relief = self._relief[owner] = self.selection.relief(owner)
        return self._problem.node_cost[node] - relief <= _TOLERANCE

    def _flip_users(self, shared: int, node: int, users: list[Flips], slack: float) -> float:
        """Make an e-class available by an e-node, and turn each user to it whose flips cost at most ``slack`` ms.

        Returns the change of cost in ms, infinite if no user turned to it. The caller undoes the flips.
        """
        selection = self.selection
        before = selection.cost
        selection.hold(shared, node)
        turned = set()
        for flips in users:
            last = flips[-1][0]
            # A user may have left the extraction together with an earlier one.
            if last in turned or not selection.references[last]:
                continue
            mark, cost = selection.mark(), selection.cost
            for owner, user in flips:
                selection.flip(owner, user)
            # The check also passes through what the shared e-class itself needs.
            if selection.cost - cost <= slack and not selection.closes_cycle(last):
                turned.add(last)
            else:
                selection.undo(mark)
        if not turned:
            return float("inf")
        selection.drop(shared)
        return selection.cost - before

    def _possible_users(self, shared: int) -> list[Flips]:
        """The ways in which e-classes of the extraction could use one outside of it, directly or not; none if < 2."""
        selection, node_class = self.selection, self._problem.node_class
        if selection.references[shared]:
            return []
        users: list[Flips] = []
        ways: dict[int, Flips] = {shared: ()}
        pending = [shared]
        for current in pending:  # grows while we walk
            for node in self._users[current]:
                owner = node_class[node]
                if owner in ways:
                    continue
                way = (*ways[current], (owner, node))
                if selection.references[owner]:
                    users.append(way)
                elif len(pending) < _INDIRECT_USERS:
                    ways[owner] = way
                    pending.append(owner)
        return users if len({way[-1][0] for way in users}) >= 2 else []
