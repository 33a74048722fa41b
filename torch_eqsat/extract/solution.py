"""The current extraction of a local search: reference counts, exact cost changes, cycle checks, undo."""

from __future__ import annotations

from torch_eqsat.extract.problem import Choices, ExtractionProblem, needed_classes

_UNPLACED = 1 << 60
# Cycle checks grow with the flips that are not yet committed, and a commit visits all e-classes of the extraction.
_FLIPS_PER_COMMIT = 24


class Selection:
    """An acyclic extraction that changes by flips of e-classes, each of which is cheap to make and to undo.

    Every computable e-class has a chosen e-node; those with references are the extraction, the others keep the e-node
    that they would use if they became needed. The children of the problem's e-nodes must be distinct.
    """

    def __init__(self, problem: ExtractionProblem, defaults: Choices, incumbent: Choices) -> None:
        self.chosen = [-1] * len(problem.class_nodes)
        self.references = [0] * len(problem.class_nodes)
        self.cost = 0.0
        """Cost in ms of the extraction."""
        self.flips = 0
        """How many flips were made, undone ones included: the work of a search, equal in every process."""
        self.order: list[int] = []
        """The e-classes of the extraction at the last commit, operands before their users."""
        self._problem = problem
        self._position = [_UNPLACED] * len(problem.class_nodes)
        self._floor = _UNPLACED
        self._trail: list[int] = []  # e-classes that gained a reference, or the complement of those that lost one
        self._flips: list[tuple[int, int, int, float, int]] = []  # e-class, then before: e-node, trail, cost, floor
        self.set_defaults(defaults)
        self.set_defaults(incumbent)
        self._acquire(problem.roots)
        self.commit()

    def set_defaults(self, defaults: Choices) -> None:
        """Set the e-nodes that e-classes outside the extraction would use."""
        for owner, node in defaults.items():
            if not self.references[owner]:
                self.chosen[owner] = node

    def choices(self) -> Choices:
        """The extraction at the last commit."""
        return {owner: self.chosen[owner] for owner in self.order}

    def flip(self, owner: int, node: int) -> float:
        """Choose another e-node for an e-class; returns the change of cost in ms. May close a cycle."""
        before, old = self.cost, self.chosen[owner]
        self.flips += 1
        self._flips.append((owner, old, len(self._trail), before, self._floor))
        self._floor = min(self._floor, self._position[owner])
        self.chosen[owner] = node
        if self.references[owner]:
            problem = self._problem
            self.cost += problem.node_cost[node] - problem.node_cost[old]
            # Acquiring comes first, so that e-classes that both e-nodes need are neither dropped nor added.
            self._acquire(problem.node_children[node])
            self._release(problem.node_children[old])
        return self.cost - before

    def hold(self, owner: int, node: int) -> float:
        """Make an e-class available by this e-node, whether needed or not; returns the change of cost in ms."""
        before = self.cost
        self.flip(owner, node)
        self._acquire((owner,))
        return self.cost - before

    def drop(self, owner: int) -> None:
        """End a hold; e-classes that nothing else needs leave the extraction."""
        self._flips.append((owner, self.chosen[owner], len(self._trail), self.cost, self._floor))
        self._release((owner,))

    def relief(self, owner: int) -> float:
        """The cost in ms of the chosen e-node of an e-class in the extraction, and of what it alone needs."""
        node = self.chosen[owner]
        before, mark = self.cost, self.mark()
        self._flips.append((owner, node, len(self._trail), before, self._floor))
        self._release(self._problem.node_children[node])
        relief = before - self.cost + self._problem.node_cost[node]
        self.undo(mark)
        return relief

    def mark(self) -> int:
        """A point to which `undo` can return, until the next commit."""
        return len(self._flips)

    def undo(self, mark: int) -> None:
        """Take back all flips, holds and drops since the mark."""
        references, trail = self.references, self._trail
        while len(self._flips) > mark:
            owner, old, length, cost, self._floor = self._flips.pop()
            undone = trail[length:]
            del trail[length:]
            for step in undone:
                if step >= 0:
                    references[step] -= 1
                else:
                    references[~step] += 1
            self.chosen[owner] = old
            self.cost = cost

    def keep(self) -> None:
        """Keep all flips for now; commits only after many flips, because a commit visits the whole extraction."""
        if len(self._flips) > _FLIPS_PER_COMMIT:
            self.commit()

    def commit(self) -> None:
        """Keep all flips for good; raises InvalidExtractionError if they closed a cycle."""
        choices: Choices = {}
        pending = list(self._problem.roots)
        while pending:
            owner = pending.pop()
            if owner not in choices:
                choices[owner] = self.chosen[owner]
                pending.extend(self._problem.node_children[self.chosen[owner]])
        for owner in self.order:
            self._position[owner] = _UNPLACED
        self.order = needed_classes(self._problem, choices)
        for position, owner in enumerate(self.order):
            self._position[owner] = position
        self.cost = sum(self._problem.node_cost[node] for node in choices.values())
        self._flips.clear()
        self._trail.clear()
        self._floor = _UNPLACED

    def closes_cycle(self, owner: int) -> bool:
        """Whether a cycle of chosen e-nodes can be reached from the e-class.

        The positions of the last commit bound the search: an e-class below all flipped e-classes reaches none of them,
        and every cycle passes through a flipped e-class or through one that was not in the extraction.
        """
        floor = min(self._floor, self._position[owner])
        chosen, position, node_children = self.chosen, self._position, self._problem.node_children
        finished: dict[int, bool] = {}  # False: on the path being explored
        stack = [owner]
        while stack:
            current = stack[-1]
            if current in finished:
                finished[current] = True
                stack.pop()
                continue
            finished[current] = False
            for child in node_children[chosen[current]]:
                if position[child] >= floor:
                    child_finished = finished.get(child)
                    if child_finished is None:
                        stack.append(child)
                    elif not child_finished:
                        return True
        return False

    def _acquire(self, owners: tuple[int, ...]) -> None:
        """Add one reference to each of the e-classes, and to all e-classes that they newly need."""
        chosen, references = self.chosen, self.references
        node_children, node_cost = self._problem.node_children, self._problem.node_cost
        trail = self._trail
        pending = list(owners)
        while pending:
            owner = pending.pop()
            count = references[owner]
            references[owner] = count + 1
            trail.append(owner)
            if not count:
                node = chosen[owner]
                self.cost += node_cost[node]
                pending.extend(node_children[node])

    def _release(self, owners: tuple[int, ...]) -> None:
        """Take one reference from each of the e-classes, and from all e-classes that are no longer needed then."""
        chosen, references = self.chosen, self.references
        node_children, node_cost = self._problem.node_children, self._problem.node_cost
        trail = self._trail
        pending = list(owners)
        while pending:
            owner = pending.pop()
            count = references[owner] - 1
            references[owner] = count
            trail.append(~owner)
            if not count:
                node = chosen[owner]
                self.cost -= node_cost[node]
                pending.extend(node_children[node])
