"""Hints between graphs that are equal up to their sizes, for which the same laws make the best programs.

The laws that made the best program of one graph are tried alone on the others: every guard is checked and every price
is taken there anew. If they save as large a share, nothing else is searched; this takes a tenth of a search.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch_eqsat.ir.program import Program
from torch_eqsat.ir.term import Node, TermGraph


@dataclass(frozen=True, slots=True)
class Hint:
    """What made the best program of a graph that is equal up to sizes: the names of ``laws``, and the ``gain``, the
    share of the captured program's cost that it saved."""

    laws: frozenset[str]
    gain: float


def skeleton_of(graph: TermGraph) -> str:
    """A digest that is equal for graphs that differ only in sizes and in what is known of inputs."""
    ranks = [None if t is None else (len(t.shape), t.dtype) for t in graph.types]
    rows = [[_name_of(node) for node in graph.nodes], ranks, graph.constant, graph.equal, graph.roots]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def _name_of(node: Node) -> tuple[str, tuple[int, ...]]:
    """The operator of a node without its attributes, by ATen's name if it is a captured call, and its operands."""
    return str(node["uid"]).partition("(")[0] if node.op == "fx" else node.op, node.children


def hint_of(program: Program, base_cost: float) -> Hint | None:
    """The hint that a search for a graph of ``base_cost`` (ms) gives by its best program; None if it found none."""
    gain = (base_cost - program.cost) / base_cost if base_cost > 0 else 0.0
    return Hint(frozenset(program.laws), gain) if gain > 0 and program.laws else None


def better(hints: Iterable[Hint | None]) -> Hint | None:
    """The hint of the greatest gain."""
    return max((hint for hint in hints if hint is not None), key=lambda hint: hint.gain, default=None)


def gathered(graphs: Sequence[TermGraph]) -> list[list[int]]:
    """The indices of ``graphs``, those of equal skeletons together, in the order in which they first occur."""
    groups: dict[str, list[int]] = {}
    for index, graph in enumerate(graphs):
        groups.setdefault(skeleton_of(graph), []).append(index)
    return list(groups.values())
