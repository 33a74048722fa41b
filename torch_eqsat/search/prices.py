"""Prices of terms in their graph: what a convolution before them takes in is free, gathers cost what their layout
makes of them, and slices of channels the copies that convolutions need."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch_eqsat.cost.epilogue import ABSORBABLE, Stage, stage_of
from torch_eqsat.cost.layout import Layouts
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.egraph.snapshot import Snapshot
from torch_eqsat.ir.term import Node, TermGraph


class TermPrices:
    """Prices in ms of the terms of ``graph``, of which a program uses each so often as ``uses`` says (once, for those
    not in it)."""

    def __init__(
        self,
        graph: TermGraph,
        pricing: Pricing,
        uses: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        self._graph, self._pricing = graph, pricing
        self._stages = _term_stages(graph, uses) if pricing.epilogues else {}
        layouts = Layouts(graph) if pricing.epilogues and pricing.whole else None
        self._of_channels = layouts.gathers_of_channels() if layouts else frozenset()
        self._copies = layouts.copies_of_slices() if layouts else {}

    def __call__(self, term: int) -> float:
        graph, node = self._graph, self._graph.nodes[term]
        operands = [t for c in node.children if (t := graph.types[c]) is not None]
        absorbed = node.op in ABSORBABLE and term in self._stages
        return self._pricing.price(
            node,
            operands,
            graph.types[term],
            _flags(graph, node),
            graph.constant[term],
            absorbed=absorbed,
            of_channels=term in self._of_channels,
            copies=self._copies.get(term, 0),
        )


def _term_stages(graph: TermGraph, uses: Mapping[int, int]) -> dict[int, Stage]:
    """The stages of the terms that have one. What several use is stored, and takes nothing in."""
    meaning = dict(graph.equal)
    captured = {meant: term for term, meant in graph.equal}
    stages: dict[int, Stage] = {}
    for term, node in enumerate(graph.nodes):
        if node.op == "fx":
            stage = stages.get(meaning.get(term, term))
        else:
            before = [stages.get(c, Stage.NONE) if uses.get(c, 1) == 1 else Stage.NONE for c in node.children]
            stage = stage_of(node, [graph.types[c] for c in node.children], _flags(graph, node), before)
        if stage:
            stages[term] = stages[captured.get(term, term)] = stage
    return stages


def _flags(graph: TermGraph, node: Node) -> list[bool]:
    return [graph.constant[c] for c in node.children]


def absorbed_rows(snapshot: Snapshot) -> set[int]:
    """The e-nodes that a convolution before them may take in, by index.

    Which e-node of an operand is chosen, and how many use it, is not known yet: of each e-class the one counts that
    takes in most, and every user is taken to be the only one.
    """
    types, constant = snapshot.types, snapshot.constant
    rows = [i for i, node in enumerate(snapshot.nodes) if node.op in ABSORBABLE or node.op == "conv"]
    stages: dict[int, Stage] = {}
    absorbed: set[int] = set()
    grows = True
    while grows:
        grows = False
        for index in rows:
            node, owner = snapshot.nodes[index], snapshot.classes[index]
            before = [stages.get(c, Stage.NONE) for c in node.children]
            if node.op != "conv" and not any(before):
                continue
            stage = stage_of(node, [types[c] for c in node.children], [constant[c] for c in node.children], before)
            if stage and node.op != "conv":
                absorbed.add(index)
            if stage > stages.get(owner, Stage.NONE):
                stages[owner] = stage
                grows = True
    return absorbed
