"""Monte Carlo tree search over batches of laws.

After "Optimizing Tensor Computation Graphs with Equality Saturation and Monte Carlo Tree Search" (Hartmann, He,
Yoneki, PACT 2024), with these differences: rewards are relative to the cost of the original (theirs, in ms, left the
exploration term to decide alone); selection is PUCT with priors (Rosin 2011, as in AlphaZero); the value of a node is
the best return below it, since the search is for one best program; stopping is a move (an empty playout); and the
first playout applies everything until nothing changes, because an e-graph that saturates below the limit leaves
nothing to search.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from torch_eqsat.search.environment import Action, Environment, actions_of

EXPLORATION = 0.25  # in units of the original's cost: gains of a quarter are large
PLAYOUT_STEPS = 3
PATIENCE = 12  # playouts without an improvement


@dataclass
class TreeNode:
    """A state of the e-graph, reached by a path of actions. ``value`` is the best return seen below."""

    visits: int = 0
    value: float = 0.0
    closed: bool = False
    children: dict[int, TreeNode] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchStatistics:
    """How a search went: why it stopped, playouts, the largest e-graph (e-nodes)."""

    stop: str
    simulations: int
    nodes: int


class MonteCarloTreeSearch:
    """Searches an environment; ``run`` may be interrupted at any time, the environment keeps the best program."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.actions = actions_of(environment.laws)
        self.random = random.Random(environment.seed)
        self.root = TreeNode()

    def run(self) -> SearchStatistics:
        environment = self.environment
        if self._apply_everything():
            return SearchStatistics("saturated", 1, environment.largest_nodes)
        simulations, fruitless = 1, 0
        stop = "simulations"
        while simulations < environment.limits.simulations:
            if environment.out_of_time:
                stop = "time"
                break
            if fruitless >= PATIENCE or self.root.closed:
                stop = "no improvement" if fruitless >= PATIENCE else "exhausted"
                break
            before = environment.best.cost
            self._simulate()
            fruitless = 0 if environment.best.cost < before else fruitless + 1
            simulations += 1
        return SearchStatistics(stop, simulations, environment.largest_nodes)

    def _apply_everything(self) -> bool:
        """The first playout; whether it saturated the e-graph within the limits."""
        environment = self.environment
        environment.session.push()
        saturated = False
        while not environment.out_of_time:
            changed, truncated = environment.step(self.actions[0])
            if truncated or not changed:
                saturated = not truncated
                break
        environment.evaluate()
        environment.session.pop()
        return saturated

    def _simulate(self) -> None:
        """Selection, expansion, playout, backup."""
        environment = self.environment
        environment.session.push()
        path = [self.root]
        truncated = False
        while not truncated and not environment.out_of_time:
            node = path[-1]
            choice = self._select(node)
            if choice is None:
                node.closed = True
                break
            fresh = choice not in node.children
            child = node.children.setdefault(choice, TreeNode())
            changed, truncated = environment.step(self.actions[choice])
            if not changed:
                child.closed = True
                continue
            path.append(child)
            if fresh:
                break
        if not truncated:
            self._play_out()
        cost = environment.evaluate()
        environment.session.pop()
        gain = (environment.base_cost - cost) / environment.base_cost if environment.base_cost else 0.0
        for node in path:
            node.visits += 1
            node.value = max(node.value, gain)

    def _play_out(self) -> None:
        """Random batches from here on; fewer as the e-graph fills."""
        for _ in range(self.random.randint(0, PLAYOUT_STEPS)):
            if self.environment.out_of_time:
                return
            _, truncated = self.environment.step(self.random.choice(self.actions))
            if truncated:
                return

    def _prior(self, choice: int) -> float:
        """Batches come before single laws: a third for everything, a third for the families, a third for the laws."""
        action = self.actions[choice]
        alike = sum(_rank(other) == _rank(action) for other in self.actions)
        return 1 / (3 * alike)

    def _select(self, node: TreeNode) -> int | None:
        """The child with the greatest upper confidence bound; None when all are closed."""
        best, best_score = None, -math.inf
        for choice in range(len(self.actions)):
            child = node.children.get(choice)
            if child is not None and child.closed:
                continue
            value, visits = (child.value, child.visits) if child else (node.value, 0)
            score = value + EXPLORATION * self._prior(choice) * math.sqrt(node.visits + 1) / (1 + visits)
            if score > best_score:
                best, best_score = choice, score
        return best


def _rank(action: Action) -> int:
    return (
        0
        if action.name == "everything"
        else 1
        if len({law.family for law in action.laws}) == 1 < len(action.laws)
        else 2
    )
