"""Landmarks: sets of e-nodes of which every acyclic computation of an e-class uses at least one.

In a linear program, e-classes of a cycle may support each other at no cost. Landmarks cut such solutions off: if the
e-nodes of a solution do not compute an e-class from the leaves up, then an e-node is missing at the border of the
e-classes that they do compute.
"""

from __future__ import annotations

from torch_eqsat.extract.problem import ExtractionProblem


class LandmarkFinder:
    """Finds landmarks among some e-classes of a problem; all others count as available."""

    def __init__(self, problem: ExtractionProblem, class_nodes: dict[int, list[int]]) -> None:
        self._class_nodes = class_nodes
        self._owner = {node: owner for owner, nodes in class_nodes.items() for node in nodes}
        self._operands = {
            node: [child for child in problem.node_children[node] if child in class_nodes] for node in self._owner
        }
        self._users: dict[int, list[int]] = {owner: [] for owner in class_nodes}
        for node, operands in self._operands.items():
            for operand in operands:
                self._users[operand].append(node)

    def computable(self, usable: set[int]) -> set[int]:
        """The e-classes that the usable e-nodes compute from the leaves up."""
        missing = {node: len(self._operands[node]) for node in usable}
        pending = [node for node, count in missing.items() if not count]
        computed: set[int] = set()
        while pending:
            owner = self._owner[pending.pop()]
            if owner in computed:
                continue
            computed.add(owner)
            for user in self._users[owner]:
                if user in missing:
                    missing[user] -= 1
                    if not missing[user]:
                        pending.append(user)
        return computed

    def landmark(self, goal: int, computed: set[int]) -> set[int]:
        """E-nodes of which every acyclic computation of ``goal`` uses one, none of them usable.

        ``computed`` are the e-classes that the usable e-nodes compute; the goal is not among them. The search goes back
        from the goal. An e-node whose operands are all computed belongs to the landmark; any other e-node needs an
        operand that is not computed, and following one such operand is enough.
        """
        border: set[int] = set()
        met = {goal}
        pending = [goal]
        while pending:
            for node in self._class_nodes[pending.pop()]:
                waits_for = [operand for operand in self._operands[node] if operand not in computed]
                if not waits_for:
                    border.add(node)
                elif met.isdisjoint(waits_for):
                    met.add(waits_for[0])
                    pending.append(waits_for[0])
        return border
