"""The tree of a Monte Carlo tree search: states, edges with priors, selection. Equal states are one node."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field

from torch_eqsat.search.parameters import SearchParameters


@dataclass
class Edge:
    """A move out of a state: its prior, how often it was made, and where it led (None before it was)."""

    move: int
    prior: float
    visits: int = 0
    closed: bool = False
    target: TreeNode | None = None


@dataclass(eq=False)
class TreeNode:
    """A state of the e-graph. ``value`` is the best gain (of the base cost, 0 to 1) seen at it or below."""

    visits: int = 0
    value: float = 0.0
    truncated: bool = False
    edges: list[Edge] | None = None  # by prior, highest first; None before the moves were listed

    def select(self, best_gain: float, parameters: SearchParameters) -> Edge | None:
        """The open move with the greatest upper confidence bound (PUCT, Rosin 2011); None when there is none.

        Gains are measured in units of the best one found so far: programs gain a few per cent or nine tenths.
        """
        scale = best_gain if best_gain > 0 else 1.0
        opened = parameters.first_moves + int(parameters.moves_per_visit * math.sqrt(self.visits))
        candidates = [edge for edge in self.edges or () if not edge.closed][:opened]

        def score(edge: Edge) -> float:
            value = self.value if edge.target is None else edge.target.value
            return value / scale + parameters.exploration * edge.prior * math.sqrt(self.visits + 1) / (1 + edge.visits)

        return max(candidates, key=score, default=None)


@dataclass
class Tree:
    """All states met, by what tells them apart; a state that is reached in two ways is one node."""

    nodes: dict[Hashable, TreeNode] = field(default_factory=dict)

    def node(self, state: Hashable) -> TreeNode:
        """The node of ``state``, which is added if it is new."""
        return self.nodes.setdefault(state, TreeNode())


def as_edges(weights: dict[int, float]) -> list[Edge]:
    """Edges of moves with weights, which need not sum to 1; highest first, ties in the order given."""
    total = sum(weights.values())
    edges = [Edge(move, weight / total) for move, weight in weights.items() if weight > 0]
    return sorted(edges, key=lambda edge: -edge.prior)
