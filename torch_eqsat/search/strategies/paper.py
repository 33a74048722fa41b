"""The search of the paper, to the letter: the baseline that ``mcts`` is measured against.

"Optimizing Tensor Computation Graphs with Equality Saturation and Monte Carlo Tree Search" (Hartmann, He, Yoneki, PACT
2024), sections 3 and 4, and the settings of its published code: an action is one law applied everywhere; 128
simulations for each action that is committed to, in a tree made anew each time; the reward of a step is what the cost
of a greedy extraction fell by, in ms; UCT without normalisation; rollouts of at most 11 random laws; no stop; exact
extraction from the last e-graph alone. (Their greedy extraction found the same programs as ours on five e-graphs.)

Laws are deterministic, so what a law makes of an e-graph, and what that costs, is remembered by the e-graph's content,
as their code remembers costs; this changes no decision.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from torch_eqsat.search.actions import shipped_statistics, single_actions
from torch_eqsat.search.environment import Environment
from torch_eqsat.search.limits import SearchStatistics, StopReason

State = tuple[str, int]


@dataclass
class Seen:
    """What is known of a state: a path of laws that leads to it, its cost (ms), the laws that match, where laws lead
    (None: nowhere new), and whether the node limit was reached."""

    path: tuple[int, ...]
    cost: float
    full: bool
    matching: list[int] | None = None
    after: dict[int, State | None] = field(default_factory=dict)


@dataclass
class Visited:
    """A node of the tree for one committed action."""

    state: State
    visits: int = 0
    total: float = 0.0
    unvisited: list[int] = field(default_factory=list)
    children: dict[int, Visited] = field(default_factory=dict)

    def uct(self, parent_visits: int, exploration: float) -> float:
        """Mean return (ms) and the exploration term."""
        return self.total / self.visits + exploration * math.sqrt(2 * math.log(parent_visits) / self.visits)


class PaperTreeSearch:
    """The paper's search; ``committed`` are the laws that it decided for."""

    def __init__(self, environment: Environment) -> None:
        self.environment, self.parameters = environment, environment.parameters
        self.actions = single_actions(environment.laws, shipped_statistics(self.parameters.unknown_law))
        self.random = random.Random(environment.seed)
        self.seen: dict[State, Seen] = {}
        self.committed: list[int] = []
        self.simulations = 0
        self._at: tuple[int, ...] = ()  # the path of laws that was applied to the e-graph

    def run(self) -> SearchStatistics:
        """Commit to one law after another until a limit, or until none changes anything; why it stopped."""
        environment = self.environment
        root = environment.state
        self.seen[root] = Seen((), environment.evaluate(simple=True), False)
        stop = StopReason.ACTIONS
        for _ in range(self.parameters.paper_committed_actions):
            choice = self._plan(root)
            if environment.out_of_time:
                stop = StopReason.TIME
                break
            if choice is None:
                stop = StopReason.SATURATED
                break
            following = self._after(root, choice)
            assert following is not None
            self.committed.append(choice)
            root = following
            if self._is_over(root):
                stop = StopReason.NODES if self.seen[root].full else StopReason.COST
                break
        self._go(self.seen[root].path)
        environment.evaluate()
        environment.finish()
        self._go(())
        return SearchStatistics(stop, self.simulations, environment.largest_nodes)

    # The states, with what is known of them

    def _go(self, path: tuple[int, ...]) -> None:
        """Bring the e-graph to the state at ``path``."""
        shared = 0
        while shared < min(len(path), len(self._at)) and path[shared] == self._at[shared]:
            shared += 1
        for _ in self._at[shared:]:
            self.environment.pop()
        for law in path[shared:]:
            self.environment.push()
            self.environment.step(self.actions[law])
        self._at = path

    def _after(self, state: State, law: int) -> State | None:
        """The state that ``law`` leads to; None if it changes nothing."""
        seen = self.seen[state]
        if law not in seen.after:
            self._go(seen.path)
            self.environment.push()
            changed, truncated = self.environment.step(self.actions[law])
            self._at = (*seen.path, law)
            following = self.environment.state if changed else None
            if following is not None and following not in self.seen:
                self.seen[following] = Seen(self._at, self.environment.evaluate(simple=True), truncated)
            seen.after[law] = following
        return seen.after[law]

    def _matching(self, state: State) -> list[int]:
        seen = self.seen[state]
        if seen.matching is None:
            self._go(seen.path)
            matches = self.environment.egraph.count_matches(self.environment.laws)
            seen.matching = [i for i, a in enumerate(self.actions) if any(law.name in matches for law in a.laws)]
        return seen.matching

    def _is_over(self, state: State) -> bool:
        seen = self.seen[state]
        return seen.full or seen.cost < self.parameters.paper_least_cost or self.environment.out_of_time

    # The search

    def _plan(self, state: State) -> int | None:
        """The law to commit to, that of the best mean return among those tried; None if none changes anything."""
        root = self._visited(state)
        for _ in range(self.parameters.paper_simulations):
            if self.environment.out_of_time:
                break
            self._simulate(root)
            self.simulations += 1
        best = max(root.children.items(), key=lambda item: item[1].total / item[1].visits, default=None)
        return best[0] if best else None

    def _visited(self, state: State) -> Visited:
        return Visited(state, unvisited=list(self._matching(state)))

    def _simulate(self, root: Visited) -> None:
        path = [root]
        rewards: list[float] = []
        while True:
            node = path[-1]
            if self._is_over(node.state):
                break
            expand = node is root or not node.children or self.random.random() < self.parameters.paper_expansion
            child = self._expand(node) if node.unvisited and expand else None
            if child is None and not node.children:
                break
            fresh = child is not None
            if child is None:
                child = self._select(node)
            rewards.append(max(self.seen[node.state].cost - self.seen[child.state].cost, 0.0))
            path.append(child)
            if fresh:
                break
        value = self._roll_out(path[-1].state)
        path[-1].visits += 1
        path[-1].total += value
        for node, reward in zip(reversed(path[:-1]), reversed(rewards), strict=True):
            value = reward + self.parameters.paper_discount * value
            node.visits += 1
            node.total += value

    def _select(self, node: Visited) -> Visited:
        return max(node.children.values(), key=lambda c: c.uct(node.visits, self.parameters.paper_exploration))

    def _expand(self, node: Visited) -> Visited | None:
        """A child by a random law that was not tried; laws that change nothing are closed on the way."""
        while node.unvisited:
            law = node.unvisited.pop(self.random.randrange(len(node.unvisited)))
            state = self._after(node.state, law)
            if state is not None:
                node.children[law] = self._visited(state)
                return node.children[law]
        return None

    def _roll_out(self, state: State) -> float:
        """The discounted return (ms) of random laws."""
        total, factor, idle = 0.0, 1.0, 0
        for _ in range(self.parameters.paper_rollout_steps):
            if self._is_over(state) or idle == len(self.actions):
                break
            following = self._after(state, self.random.randrange(len(self.actions)))
            if following is None:
                idle += 1
            else:
                idle = 0
                total += factor * max(self.seen[state].cost - self.seen[following].cost, 0.0)
                state = following
            factor *= self.parameters.paper_discount
        return total
