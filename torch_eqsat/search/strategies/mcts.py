"""Monte Carlo tree search over batches of laws.

After "Optimizing Tensor Computation Graphs with Equality Saturation and Monte Carlo Tree Search" (Hartmann, He,
Yoneki, PACT 2024), with these differences:

- Rewards are relative to the cost of the original and measured in units of the best gain (theirs, in ms, left the
  exploration term to decide alone), and come from an extraction that sees merges.
- Selection is PUCT with priors from match counts and from what is known of the laws (Rosin 2011, as in AlphaZero), with
  progressive widening; the value of a state is the best return below it, since the search is for one best program.
- Stopping is a move, and so is *rebasing*: the best program of the present e-graph begins a new, small one (the
  pulses of Caviar, Kourta et al., CC 2022). Under a limit of nodes it is what makes room. The root itself moves to the
  best program whenever there is a better one.
- Equal e-graphs are one node of the tree, however they were reached, and the tree is kept throughout.
- The search opens with everything, applied until nothing changes. If that stays below the limit, the order of those
  laws is of no matter, and only expansive laws are moves, each followed by everything again; they get no more work than
  the others took since they last gained something. If those do not reach the limit either, nothing is left to search.
- Another playout is plain saturation, with expansive laws under the same limit: no search does worse than it. Then
  parts of the graph are searched by themselves, for which the limit leaves more room (NasRNN: 32.9 %, whole 31.9 %).
"""

from __future__ import annotations

import math
import random
from collections import Counter

from torch_eqsat.ir.program import restarted
from torch_eqsat.search.actions import actions_of, shipped_statistics
from torch_eqsat.search.environment import Environment
from torch_eqsat.search.limits import SearchStatistics, StopReason
from torch_eqsat.search.strategies.hinted import follow_hint
from torch_eqsat.search.strategies.parts import search_parts
from torch_eqsat.search.strategies.patience import Patience
from torch_eqsat.search.strategies.saturation import saturate
from torch_eqsat.search.strategies.tree import Edge, Tree, TreeNode, as_edges

STOP, REBASE = -1, -2


class MonteCarloTreeSearch:
    """Searches an environment; ``run`` may be interrupted at any time, the environment keeps the best program."""

    def __init__(self, environment: Environment) -> None:
        self.environment, self.parameters = environment, environment.parameters
        self.actions = actions_of(environment.laws, shipped_statistics(self.parameters.unknown_law))
        self.expansive = [any(law.expansive for law in action.laws) for action in self.actions]
        self.random = random.Random(environment.seed)
        self.tree, self.roots = Tree(), list[TreeNode]()
        self.simulations, self.saturates = 0, False
        self.made, self.lucky = Counter[int](), Counter[int]()
        self.patience = Patience(environment)

    def run(self) -> SearchStatistics:
        """Search until a limit, or until playouts bring nothing; why it stopped."""
        environment = self.environment
        if follow_hint(environment):
            return SearchStatistics(StopReason.HINT, 1, environment.largest_nodes)
        environment.push()
        self.saturates = self._grow()
        self._evaluate()
        expansive = [law for law in environment.laws if law.expansive]
        more = not self.saturates or bool(environment.egraph.count_matches(expansive))
        if self.saturates:  # what a rebased program makes room for need not be larger than what was
            self._narrow()
        self._pulse(wide=False)
        environment.pop()
        if more:
            if self.saturates:
                self.patience.grant()
                self._narrow()
            if not self._play_saturation():
                self._play_parts()
            self._narrow()
            more = self._play_wide()
        stop = self._search() if more else StopReason.SATURATED
        environment.finish()
        return SearchStatistics(stop, self.simulations, environment.largest_nodes)

    def _narrow(self) -> None:
        """Bound e-graphs by what the largest one took."""
        self.environment.narrow(self.parameters.room * self.environment.largest_nodes + self.parameters.least_room)

    def _play_saturation(self) -> bool:
        """What the strategy of that name does, so that no search ends with less; whether it stayed below the limits, so
        that parts of the graph need no room of their own."""
        if self._is_spent():
            return False
        self.environment.push()
        stop, _ = saturate(self.environment)
        self._evaluate()
        self.environment.pop()
        return stop is StopReason.SATURATED

    def _play_parts(self) -> None:
        """Search parts of the graph one by one, and go on with what they make together."""
        environment = self.environment
        left = environment.limits.simulations - self.simulations
        program, made = search_parts(environment, left, lambda part: MonteCarloTreeSearch(part).run())
        self.simulations += made
        if program is not None:
            environment.push()
            environment.enter(restarted(environment.task, program))
            self._grow()
            self._evaluate()
            self._pulse(wide=False)
            environment.pop()

    def _play_wide(self) -> bool:
        """All laws, the expansive ones one at a time; whether a limit left something to do."""
        if self._is_spent() or self.patience.is_over:
            return True
        self.environment.push()
        more = not self._grow(wide=True)
        self._evaluate()
        self._pulse(wide=True)
        self.environment.pop()
        return more

    def _evaluate(self) -> float:
        """The cost (ms) that a playout ends with."""
        self.simulations += 1
        cost = self.environment.evaluate()
        self.patience.note()
        return cost

    def _is_spent(self) -> bool:
        return self.simulations >= self.environment.limits.simulations

    def _grow(self, *, wide: bool = False) -> bool:
        """Apply everything, fairly, until nothing changes; ``wide`` with each expansive law on its own in between.
        Whether that ended within the limits."""
        environment = self.environment
        batches = [self.actions[0]]
        if wide:
            batches += [action for action, expansive in zip(self.actions, self.expansive, strict=True) if expansive]
        grown = True
        while grown and not environment.out_of_time:
            grown = False
            for batch in batches:
                changed, truncated = (False, True) if self.patience.is_over else environment.step(batch, fair=True)
                if truncated:
                    return False
                grown |= changed
        return not grown

    def _pulse(self, *, wide: bool) -> None:
        """Rebase and grow as long as that gains."""
        environment = self.environment
        for _ in range(self.parameters.pulses):
            before = environment.best.cost
            if self._is_spent() or environment.out_of_time or self.patience.is_over or not environment.rebase():
                return
            self._grow(wide=wide)
            self._evaluate()
            if before - environment.best.cost < self._least_gain:
                return

    def _search(self) -> StopReason:
        """Playouts until a limit or until they bring nothing; why they ended."""
        environment = self.environment
        fruitless = 0
        while True:
            environment.push()
            environment.enter_best()
            root = self.tree.node(environment.state)
            self.roots.append(root)
            before = environment.best.cost
            while before - environment.best.cost <= self._least_gain:
                if stop := self._reason_to_stop(root, fruitless):
                    environment.pop()
                    return stop
                self._simulate(root)
                fruitless += 1
            fruitless = 0
            environment.pop()

    def _reason_to_stop(self, root: TreeNode, fruitless: int) -> StopReason | None:
        if self.environment.out_of_time:
            return StopReason.TIME
        if self._is_spent():
            return StopReason.SIMULATIONS
        if fruitless >= self.parameters.patience or self.patience.is_over:
            return StopReason.NO_IMPROVEMENT
        closed = root.edges is not None and all(edge.closed for edge in root.edges)
        return StopReason.EXHAUSTED if closed else None

    def _simulate(self, root: TreeNode) -> None:
        """Selection, expansion, playout, backup."""
        environment = self.environment
        before = environment.best.cost
        environment.push()
        path, moves = self._descend(root)
        gain = self._gain(self._evaluate())
        environment.pop()
        for node in path:
            node.visits += 1
            node.value = max(node.value, gain)
        self.made.update(moves)
        if before - environment.best.cost > self._least_gain:
            self.lucky.update(moves)

    @property
    def _least_gain(self) -> float:
        """The gain (ms) that is a reason to go on."""
        return self.parameters.least_gain * self.environment.base_cost

    def _gain(self, cost: float) -> float:
        base = self.environment.base_cost
        return max(0.0, (base - cost) / base) if base else 0.0

    def _descend(self, root: TreeNode) -> tuple[list[TreeNode], set[int]]:
        """Follow the tree to a state that is new, and play on from there; the states of the tree on the way, and all
        moves made."""
        environment = self.environment
        path, moves = [root], set[int]()
        best_gain = self._gain(environment.best.cost)
        while not environment.out_of_time:
            node = path[-1]
            if node.edges is None:
                node.edges = self._moves(node, at_program=len(path) == 1)
            edge = node.select(best_gain, self.parameters)
            if edge is None:
                break
            edge.visits += 1
            moves.add(edge.move)
            if edge.move == STOP:
                edge.closed = True
                break
            if not self._make(edge):
                edge.closed = True
                continue
            assert edge.target is not None
            if edge.target in path:  # back where it was
                edge.closed = True
                break
            path.append(edge.target)
            if not edge.target.visits:
                if not edge.target.truncated:
                    moves |= self._play_out()
                break
        return path, moves

    def _make(self, edge: Edge) -> bool:
        """Make a move; whether it changed anything."""
        environment = self.environment
        if edge.move == REBASE:
            if not environment.rebase():
                return False
            truncated = False
        else:
            changed, truncated = environment.step(self.actions[edge.move], fair=True)
            if not changed:
                return False
        if self.saturates and not truncated:
            truncated = not self._grow()
        if edge.target is None:
            edge.target = self.tree.node(environment.state)
            edge.target.truncated = truncated
        return True

    def _moves(self, node: TreeNode, *, at_program: bool) -> list[Edge]:
        """The moves of the present state: batches of laws that match here, stopping, rebasing."""
        environment = self.environment
        weights: dict[int, float] = {}
        if not node.truncated:
            matches = environment.egraph.count_matches(environment.laws)
            for number, action in enumerate(self.actions):
                count = sum(matches.get(law.name, 0) for law in action.laws)
                if count and (self.expansive[number] or not self.saturates):
                    weights[number] = self._weight(number) * math.log(1 + count)
        typical = max(weights.values(), default=1.0)
        if not at_program:
            weights[STOP] = self.parameters.stop_weight * typical
            weights[REBASE] = self.parameters.rebase_weight * typical
        return as_edges(weights)

    def _weight(self, move: int) -> float:
        """How promising a move is: what is known of its laws, and how it did in this search."""
        return self.actions[move].weight * (1.0 + self.parameters.luck * self.lucky[move] / (1 + self.made[move]))

    def _play_out(self) -> set[int]:
        """A few batches from here on, promising ones more often, then everything; the moves."""
        moves: set[int] = set()
        candidates = [i for i, expansive in enumerate(self.expansive) if expansive or not self.saturates]
        weights = [self._weight(move) for move in candidates]
        for _ in range(self.random.randint(0, self.parameters.playout_steps)):
            if self.environment.out_of_time or not candidates:
                return moves
            move = self.random.choices(candidates, weights)[0]
            changed, truncated = self.environment.step(self.actions[move], fair=True)
            if changed:
                moves.add(move)
            if truncated:
                return moves
        self._grow()
        return moves
