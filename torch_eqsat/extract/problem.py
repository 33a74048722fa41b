"""The extraction problem: which e-node of each e-class to compute, so that the roots are available at least cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch_eqsat.errors import EqsatError

Choices = dict[int, int]
"""An extraction: e-class -> the e-node chosen for it, for the e-classes reachable from the roots."""


class InvalidExtractionError(EqsatError, ValueError):
    """An extraction leaves an e-class without an e-node, uses a foreign e-node, or needs itself (a cycle)."""


class NoExtractionError(EqsatError, ValueError):
    """The roots cannot be computed: every e-node of some root depends on itself."""


@dataclass(frozen=True, slots=True)
class ExtractionProblem:
    """An e-graph with costs, by dense indices of e-classes and e-nodes.

    Several e-nodes may share e-classes as children, an e-node may name a child twice or name its own e-class, and
    e-classes may form cycles.
    """

    node_class: list[int]
    """e-node -> the e-class it belongs to."""
    node_children: list[tuple[int, ...]]
    """e-node -> the e-classes of its operands."""
    node_cost: list[float]
    """e-node -> its own cost in milliseconds, finite and at least 0."""
    class_nodes: list[list[int]]
    """e-class -> its e-nodes."""
    roots: tuple[int, ...]
    """The e-classes that must be available."""


def build_problem(
    nodes: Iterable[tuple[int, tuple[int, ...], float]], roots: tuple[int, ...], class_count: int
) -> ExtractionProblem:
    """Build a problem from (e-class, children, cost in ms) of each e-node; checks the ranges of indices and costs."""
    problem = ExtractionProblem([], [], [], [[] for _ in range(class_count)], roots)
    for node, (owner, children, cost) in enumerate(nodes):
        if not 0 <= cost < float("inf"):
            raise ValueError(f"e-node {node} has cost {cost}; costs are finite and at least 0")
        if any(not 0 <= child < class_count for child in (owner, *children)):
            raise ValueError(f"e-node {node} names an e-class outside 0..{class_count - 1}")
        problem.node_class.append(owner)
        problem.node_children.append(children)
        problem.node_cost.append(cost)
        problem.class_nodes[owner].append(node)
    if any(not 0 <= root < class_count for root in roots):
        raise ValueError(f"a root is outside 0..{class_count - 1}")
    return problem


def needed_classes(problem: ExtractionProblem, choices: Choices) -> list[int]:
    """Return the e-classes that the roots need under these choices, operands before their users.

    Raises InvalidExtractionError when an e-class has no e-node, an e-node of another e-class, or needs itself.
    """
    order: list[int] = []
    done: dict[int, bool] = {}  # absent: not met; False: on the path being explored; True: finished
    stack = list(reversed(problem.roots))
    while stack:
        current = stack[-1]
        state = done.get(current)
        if state is not None:
            stack.pop()
            if not state:
                done[current] = True
                order.append(current)
            continue
        done[current] = False
        for child in problem.node_children[_chosen_node(problem, choices, current)]:
            child_done = done.get(child)
            if child_done is None:
                stack.append(child)
            elif not child_done:
                raise InvalidExtractionError(f"e-class {child} needs itself through e-class {current}")
    return order


def _chosen_node(problem: ExtractionProblem, choices: Choices, owner: int) -> int:
    node = choices.get(owner)
    if node is None:
        raise InvalidExtractionError(f"e-class {owner} is needed but has no chosen e-node")
    if not 0 <= node < len(problem.node_class) or problem.node_class[node] != owner:
        raise InvalidExtractionError(f"e-class {owner} has the chosen e-node {node}, which is not one of its own")
    return node


def check(problem: ExtractionProblem, choices: Choices) -> None:
    """Raise InvalidExtractionError unless the choices cover all that the roots need, without a cycle."""
    needed_classes(problem, choices)


def restrict(problem: ExtractionProblem, choices: Choices) -> Choices:
    """Keep only the choices of e-classes that the roots need; raises InvalidExtractionError as `check` does."""
    return {owner: choices[owner] for owner in needed_classes(problem, choices)}


def dag_cost(problem: ExtractionProblem, choices: Choices) -> float:
    """Return the cost in milliseconds of all that the roots need, each e-class counted once."""
    return sum(problem.node_cost[choices[owner]] for owner in needed_classes(problem, choices))
