"""An equivalent, smaller extraction problem, without e-classes that cost nothing and e-nodes that never help."""

from __future__ import annotations

from dataclasses import dataclass

from torch_eqsat.extract.problem import Choices, ExtractionProblem, NoExtractionError, check, restrict

FREE = -1
"""Stands in the place of an e-class that costs nothing."""


@dataclass(frozen=True, slots=True)
class ReducedProblem:
    """A smaller problem of the same least cost. It keeps the indices of the original e-classes and e-nodes.

    These are left out of all lists of ``problem.class_nodes``:

    - e-classes that the roots cannot reach or that cannot be computed;
    - free e-classes: everything that they need costs nothing;
    - e-classes whose only e-node costs nothing and has one operand that is not free, such as a view: they stand for
      that operand;
    - e-nodes that use their own e-class;
    - of the e-nodes of an e-class with equal operands, all but the cheapest.

    The children of an e-node are distinct and sorted.
    """

    problem: ExtractionProblem
    original: ExtractionProblem
    fixed_choice: dict[int, int]
    """e-class -> its e-node, for free e-classes and those that stand for their operand."""
    stands_for: list[int]
    """e-class -> the e-class whose availability is the same thing; FREE; or itself."""

    def reduce_choices(self, choices: Choices) -> Choices:
        """Translate a valid extraction of the original problem; the result costs no more."""
        check(self.original, choices)
        translated: Choices = {}
        pending = list(self.problem.roots)
        while pending:
            owner = pending.pop()
            if owner not in translated:
                children = _reduced_children(self.original, self.stands_for, choices[owner])
                translated[owner] = next(
                    node for node in self.problem.class_nodes[owner] if self.problem.node_children[node] == children
                )
                pending.extend(children)
        return translated

    def restore_choices(self, choices: Choices) -> Choices:
        """Translate an extraction of the reduced problem back to the original one, at the same cost."""
        return restrict(self.original, {**self.fixed_choice, **choices})


def reduce_problem(problem: ExtractionProblem) -> ReducedProblem:
    """Make the reduced problem; raises NoExtractionError if a root cannot be computed."""
    users = node_users(problem)
    fixed, _ = _settle(problem, users, free_only=True)
    computable, missing_operands = _settle(problem, users, free_only=False)
    for root in problem.roots:
        if root not in computable:
            raise NoExtractionError(f"root e-class {root} has no computation without a cycle")
    usable = [
        [node for node in nodes if not missing_operands[node]] if owner in computable else []
        for owner, nodes in enumerate(problem.class_nodes)
    ]
    stands_for = _stand_ins(problem, usable, fixed)
    roots = tuple(sorted({stands_for[root] for root in problem.roots} - {FREE}))
    reduced = ExtractionProblem(
        problem.node_class,
        [()] * len(problem.node_class),
        problem.node_cost,
        [[] for _ in problem.class_nodes],
        roots,
    )
    met = set(roots)
    pending = list(roots)
    while pending:
        owner = pending.pop()
        for children, node in _distinct_nodes(problem, owner, usable[owner], stands_for).items():
            reduced.class_nodes[owner].append(node)
            reduced.node_children[node] = children
            for child in children:
                if child not in met:
                    met.add(child)
                    pending.append(child)
    return ReducedProblem(reduced, problem, fixed, stands_for)


def node_users(problem: ExtractionProblem) -> list[list[int]]:
    """e-class -> the e-nodes that have it as an operand, each once."""
    users: list[list[int]] = [[] for _ in problem.class_nodes]
    for nodes in problem.class_nodes:
        for node in nodes:
            children = problem.node_children[node]
            for child in set(children) if len(children) > 1 else children:
                users[child].append(node)
    return users


def _settle(problem: ExtractionProblem, users: list[list[int]], *, free_only: bool) -> tuple[dict[int, int], list[int]]:
    """Find the computable e-classes (``free_only``: those that cost nothing at all) from the leaves up.

    Returns for each of them the first e-node found, and for each e-node how many of its operands are not among them.
    """
    settled: dict[int, int] = {}
    missing = [len(set(children)) if len(children) > 1 else len(children) for children in problem.node_children]
    pending = [node for nodes in problem.class_nodes for node in nodes if not missing[node]]
    while pending:
        node = pending.pop()
        owner = problem.node_class[node]
        if owner in settled or (free_only and problem.node_cost[node] > 0):
            continue
        settled[owner] = node
        for user in users[owner]:
            missing[user] -= 1
            if not missing[user]:
                pending.append(user)
    return settled, missing


def _stand_ins(problem: ExtractionProblem, usable: list[list[int]], fixed: dict[int, int]) -> list[int]:
    """e-class -> the e-class that it stands for, FREE, or itself; adds the e-nodes of stand-ins to ``fixed``."""
    direct = list(range(len(problem.class_nodes)))
    for owner in fixed:
        direct[owner] = FREE
    for owner, nodes in enumerate(usable):
        if direct[owner] == FREE or not nodes:
            continue
        others = nodes if len(nodes) == 1 else [node for node in nodes if owner not in problem.node_children[node]]
        if len(others) == 1 and problem.node_cost[others[0]] == 0:
            operands = {child for child in problem.node_children[others[0]] if direct[child] != FREE}
            if len(operands) == 1:
                direct[owner] = operands.pop()
                fixed[owner] = others[0]
    # No cycle: a computable e-class with a single e-node never stands, over others, for itself.
    for owner in range(len(direct)):
        target = owner
        while target != FREE and direct[target] != target:
            target = direct[target]
        while owner != target and direct[owner] != target:
            direct[owner], owner = target, direct[owner]
    return direct


def _reduced_children(problem: ExtractionProblem, stands_for: list[int], node: int) -> tuple[int, ...]:
    reduced = {stands_for[child] for child in problem.node_children[node]}
    reduced.discard(FREE)
    return tuple(sorted(reduced)) if len(reduced) > 1 else tuple(reduced)


def _distinct_nodes(
    problem: ExtractionProblem, owner: int, nodes: list[int], stands_for: list[int]
) -> dict[tuple[int, ...], int]:
    """Reduced children -> the cheapest of the e-nodes that has them."""
    distinct: dict[tuple[int, ...], int] = {}
    for node in nodes:
        children = _reduced_children(problem, stands_for, node)
        best = distinct.get(children)
        if owner not in children and (best is None or problem.node_cost[node] < problem.node_cost[best]):
            distinct[children] = node
    return distinct
