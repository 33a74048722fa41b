"""An equivalent, smaller extraction problem: what costs nothing and what never helps is taken out beforehand."""

from __future__ import annotations

from dataclasses import dataclass

from torch_eqsat.extract.problem import Choices, ExtractionProblem, NoExtractionError, needed_classes, restrict

FREE = -1
"""Stands in the place of an e-class that costs nothing."""


@dataclass(frozen=True, slots=True)
class ReducedProblem:
    """A smaller problem of the same least cost. It keeps the indices of the original e-classes and e-nodes.

    Taken out are: e-classes that the roots cannot reach or that cannot be computed; e-classes that are free (all that
    they need costs nothing); e-classes whose only e-node costs nothing and has one operand that is not free, such as a
    view (they stand for that operand); e-nodes that use their own e-class; and all but the cheapest of the e-nodes of
    an e-class that have equal operands. What is taken out is in no list of ``problem.class_nodes``. The children of an
    e-node are distinct and sorted.
    """

    problem: ExtractionProblem
    original: ExtractionProblem
    fixed_choice: dict[int, int]
    """e-class -> its e-node, for free e-classes and those that stand for their operand."""
    stands_for: list[int]
    """e-class -> the e-class whose availability is the same thing; FREE; or itself."""

    def reduce_choices(self, choices: Choices) -> Choices:
        """Translate a valid extraction of the original problem; the result costs no more."""
        translated = {}
        for owner in needed_classes(self.original, choices):
            if owner not in self.fixed_choice:
                children = _reduced_children(self.original, self.stands_for, choices[owner])
                translated[owner] = next(
                    node
                    for node in self.problem.class_nodes[owner]
                    if self.problem.node_children[node] == children
                )
        return restrict(self.problem, translated)

    def restore_choices(self, choices: Choices) -> Choices:
        """Translate an extraction of the reduced problem back to the original one, at the same cost."""
        return restrict(self.original, {**self.fixed_choice, **choices})


def reduce_problem(problem: ExtractionProblem) -> ReducedProblem:
    """Take out of the problem what cannot matter; raises NoExtractionError when a root cannot be computed."""
    users = node_users(problem)
    fixed = _settle(problem, users, free_only=True)
    computable = _settle(problem, users, free_only=False)
    for root in problem.roots:
        if root not in computable:
            raise NoExtractionError(f"root e-class {root} has no computation without a cycle")
    stands_for = _stand_ins(problem, computable, fixed)
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
        for children, node in _distinct_nodes(problem, owner, computable, stands_for).items():
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


def _settle(problem: ExtractionProblem, users: list[list[int]], *, free_only: bool) -> dict[int, int]:
    """e-class -> the first e-node found to be computable (``free_only``: at no cost at all) from the leaves up."""
    settled: dict[int, int] = {}
    waiting = [len(set(children)) for children in problem.node_children]
    pending = [node for node, count in enumerate(waiting) if count == 0]
    while pending:
        node = pending.pop()
        owner = problem.node_class[node]
        if owner in settled or (free_only and problem.node_cost[node] > 0):
            continue
        settled[owner] = node
        for user in users[owner]:
            waiting[user] -= 1
            if waiting[user] == 0:
                pending.append(user)
    return settled


def _stand_ins(problem: ExtractionProblem, computable: dict[int, int], fixed: dict[int, int]) -> list[int]:
    """e-class -> the e-class that it stands for, FREE, or itself; adds the e-nodes of stand-ins to ``fixed``."""
    direct = list(range(len(problem.class_nodes)))
    for owner in fixed:
        direct[owner] = FREE
    for owner in computable:
        if direct[owner] == FREE:
            continue
        usable = [node for node in problem.class_nodes[owner] if _is_usable(problem, node, computable)]
        if len(usable) == 1 and problem.node_cost[usable[0]] == 0:
            operands = {child for child in problem.node_children[usable[0]] if direct[child] != FREE}
            if len(operands) == 1:
                direct[owner] = operands.pop()
                fixed[owner] = usable[0]
    # No cycle: a computable e-class with a single e-node never stands, over others, for itself.
    for owner in range(len(direct)):
        target = owner
        while target != FREE and direct[target] != target:
            target = direct[target]
        while owner != target and direct[owner] != target:
            direct[owner], owner = target, direct[owner]
    return direct


def _is_usable(problem: ExtractionProblem, node: int, computable: dict[int, int]) -> bool:
    owner = problem.node_class[node]
    return all(child in computable and child != owner for child in problem.node_children[node])


def _reduced_children(problem: ExtractionProblem, stands_for: list[int], node: int) -> tuple[int, ...]:
    return tuple(sorted({stands_for[child] for child in problem.node_children[node]} - {FREE}))


def _distinct_nodes(
    problem: ExtractionProblem, owner: int, computable: dict[int, int], stands_for: list[int]
) -> dict[tuple[int, ...], int]:
    """Reduced children -> the cheapest e-node of the e-class that has them, of the usable ones."""
    distinct: dict[tuple[int, ...], int] = {}
    for node in problem.class_nodes[owner]:
        if _is_usable(problem, node, computable):
            children = _reduced_children(problem, stands_for, node)
            best = distinct.get(children)
            if owner not in children and (best is None or problem.node_cost[node] < problem.node_cost[best]):
                distinct[children] = node
    return distinct
