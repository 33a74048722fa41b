"""Monte Carlo tree search over batches of laws.

After "Optimizing Tensor Computation Graphs with Equality Saturation and Monte Carlo Tree Search" (Hartmann, He,
Yoneki, PACT 2024), with these differences:

- Rewards are relative to the cost of the original and measured in units of the best gain (theirs, in ms, left the
  exploration term to decide alone), and come from an extraction that sees merges.
- Selection is PUCT with priors from match counts and from what is known of the laws (Rosin 2011, as in AlphaZero), with
  progressive widening; the value of a state is the best return below it, since the search is for one best program.
- Stopping is a move, and so is *rebasing*: the best program of the present e-graph begins a new, small one (the
  pulses of Caviar, Kourta et al., CC 2022). Under a limit of nodes it is what makes room.
- Equal e-graphs are one node of the tree, however they were reached, and the tree is kept throughout.
- The search opens with everything, applied until nothing changes: an e-graph that saturates below the limit leaves
  nothing to search but expansive laws. One that does not is rebased as long as that gains.
"""

from __future__ import annotations

import math
import random

from torch_eqsat.search.actions import actions_of
from torch_eqsat.search.environment import Environment, SearchStatistics
from torch_eqsat.search.tree import Edge, Tree, TreeNode, as_edges

STOP, REBASE = -1, -2
PLAYOUT_STEPS = 3
PATIENCE = 12  # playouts without an improvement
PATIENCE_SATURATED = 4  # the same when only expansive laws are left
PULSES = 8  # rebases in the opening, each of which has to gain
LEAST_GAIN = 1e-4  # of the base cost; smaller ones are no reason to go on
_STOP_WEIGHT, _REBASE_WEIGHT, _EXPANSIVE_WEIGHT = 0.1, 0.5, 0.3


class MonteCarloTreeSearch:
    """Searches an environment; ``run`` may be interrupted at any time, the environment keeps the best program."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.actions = actions_of(environment.laws)
        self.random = random.Random(environment.seed)
        self.tree = Tree()
        self.root: TreeNode | None = None
        self.simulations = 0

    def run(self) -> SearchStatistics:
        environment = self.environment
        environment.push()
        saturated = self._grow()
        environment.evaluate()
        self.simulations = 1
        expansive = saturated and self._expansive_matches()
        environment.push()
        self._pulse()
        environment.pop()
        if saturated and not expansive:
            stop = "saturated"
        else:
            if not saturated:
                environment.pop()
                environment.push()
            stop = self._search(PATIENCE_SATURATED if saturated else PATIENCE)
            stop = "saturated" if saturated and stop != "time" else stop
        environment.finish()
        environment.pop()
        return SearchStatistics(stop, self.simulations, environment.largest_nodes)

    def name_of(self, move: int) -> str:
        """What a move is called."""
        return {STOP: "stop", REBASE: "rebase"}.get(move) or self.actions[move].name

    def _grow(self) -> bool:
        """Apply everything, fairly, until nothing changes; whether that ended within the limits."""
        environment = self.environment
        while not environment.out_of_time:
            changed, truncated = environment.step(self.actions[0], fair=True)
            if truncated or not changed:
                return not truncated
        return False

    def _expansive_matches(self) -> bool:
        environment = self.environment
        return bool(environment.session.count_matches([law for law in environment.laws if law.expansive]))

    def _pulse(self) -> None:
        """Rebase and grow as long as that gains."""
        environment = self.environment
        for _ in range(PULSES):
            before = environment.best.cost
            if environment.out_of_time or not environment.rebase():
                return
            self._grow()
            environment.evaluate()
            self.simulations += 1
            if before - environment.best.cost < LEAST_GAIN * environment.base_cost:
                return

    def _search(self, patience: int) -> str:
        """Playouts until a limit or until they bring nothing; why they ended."""
        environment = self.environment
        root = self.root = self.tree.node(environment.state)
        fruitless = 0
        while self.simulations < environment.limits.simulations:
            if environment.out_of_time:
                return "time"
            if fruitless >= patience:
                return "no improvement"
            if root.edges is not None and all(edge.closed for edge in root.edges):
                return "exhausted"
            before = environment.best.cost
            self._simulate(root)
            gained = before - environment.best.cost > LEAST_GAIN * environment.base_cost
            fruitless = 0 if gained else fruitless + 1
            self.simulations += 1
        return "simulations"

    def _simulate(self, root: TreeNode) -> None:
        """Selection, expansion, playout, backup."""
        environment = self.environment
        environment.push()
        path = self._descend(root)
        gain = self._gain(environment.evaluate())
        environment.pop()
        for node in path:
            node.visits += 1
            node.value = max(node.value, gain)

    def _gain(self, cost: float) -> float:
        base = self.environment.base_cost
        return max(0.0, (base - cost) / base) if base else 0.0

    def _descend(self, root: TreeNode) -> list[TreeNode]:
        """Follow the tree to a state that is new, and play on from there; the states of the tree on the way."""
        environment = self.environment
        path = [root]
        best_gain = self._gain(environment.best.cost)
        while not environment.out_of_time:
            node = path[-1]
            if node.edges is None:
                node.edges = self._moves(node, rebased=len(path) == 1)
            edge = node.select(best_gain)
            if edge is None:
                return path
            edge.visits += 1
            if edge.move == STOP:
                edge.closed = True
                return path
            if not self._make(edge):
                edge.closed = True
                continue
            fresh = edge.target is not None and not edge.target.visits
            if edge.target is None or edge.target in path:
                edge.closed = True
                return path
            path.append(edge.target)
            if fresh:
                if not edge.target.truncated:
                    self._play_out()
                return path
        return path

    def _make(self, edge: Edge) -> bool:
        """Make a move; whether it changed anything."""
        environment = self.environment
        truncated = False
        if edge.move == REBASE:
            if not environment.rebase():
                return False
        else:
            changed, truncated = environment.step(self.actions[edge.move], fair=True)
            if not changed:
                return False
        if edge.target is None:
            edge.target = self.tree.node(environment.state)
            edge.target.truncated = truncated
        return True

    def _moves(self, node: TreeNode, rebased: bool) -> list[Edge]:
        """The moves of the present state: batches of laws that match here, stopping, rebasing."""
        environment = self.environment
        weights: dict[int, float] = {}
        if not node.truncated:
            matches = environment.session.count_matches(environment.laws)
            for number, action in enumerate(self.actions):
                count = sum(matches.get(law.name, 0) for law in action.laws)
                if count:
                    expansive = any(law.expansive for law in action.laws)
                    weights[number] = action.weight * math.log(1 + count) * (_EXPANSIVE_WEIGHT if expansive else 1.0)
        typical = max(weights.values(), default=1.0)
        weights[STOP] = _STOP_WEIGHT * typical
        if not rebased:
            weights[REBASE] = _REBASE_WEIGHT * typical
        return as_edges(weights)

    def _play_out(self) -> None:
        """A few batches from here on, promising ones more often; none if the e-graph is full."""
        weights = [action.weight for action in self.actions]
        for _ in range(self.random.randint(0, PLAYOUT_STEPS)):
            if self.environment.out_of_time:
                return
            everything = self.random.random() < 0.5
            action = self.actions[0] if everything else self.random.choices(self.actions, weights)[0]
            _, truncated = self.environment.step(action, fair=True)
            if truncated:
                return
