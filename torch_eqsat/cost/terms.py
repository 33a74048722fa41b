"""Prices of terms that depend on the graph around them.

Work that a convolution absorbs is free. Gathers are priced by the layout of their operand, slices of channels and
reshapes of permuted values by the copies that they need, and products with an addend of their own size by the copy of
that addend.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from torch_eqsat.cost.inductor.copies import shuffled_views
from torch_eqsat.cost.inductor.fusion import ABSORBABLE, Stage, stage_of
from torch_eqsat.cost.inductor.layout import Layouts
from torch_eqsat.cost.model import CostModel, Missing, TermContext
from torch_eqsat.ir.term import Node, TermGraph


class TermPrices:
    """Prices in ms of the terms of ``graph``, of which a program uses each so often as ``uses`` says (once, for those
    not in it)."""

    def __init__(
        self,
        graph: TermGraph,
        pricing: CostModel,
        uses: Mapping[int, int] = MappingProxyType({}),
        missing: Missing | None = None,
    ) -> None:
        self._graph, self._pricing, self._missing = graph, pricing, missing
        self._stages = _term_stages(graph, uses) if pricing.epilogues else {}
        layouts = Layouts(graph) if pricing.epilogues and pricing.whole else None
        self._of_channels = layouts.gathers_of_channels() if layouts else frozenset()
        self._copies = layouts.copies_of_slices() if layouts else Counter[int]()
        vectors, elements = shuffled_views(graph)
        self._copies.update(vectors)
        self._shuffled = elements
        self._added_later = _products_with_addends(graph, uses) if pricing.whole and not pricing.frozen else frozenset()

    def __call__(self, term: int) -> float:
        """The price of ``term`` in ms."""
        graph, node = self._graph, self._graph.nodes[term]
        operands = [t for c in node.children if (t := graph.types[c]) is not None]
        context = TermContext(
            absorbed=node.op in ABSORBABLE and term in self._stages,
            of_channels=term in self._of_channels,
            copies=self._copies.get(term, 0),
            shuffled=term in self._shuffled,
            added_later=term in self._added_later,
        )
        result, constant = graph.types[term], graph.constant[term]
        return self._pricing.price(node, operands, result, _flags(graph, node), constant, context, self._missing)


def _products_with_addends(graph: TermGraph, uses: Mapping[int, int]) -> frozenset[int]:
    """Products of matrices to which, alone, a tensor of their own size is added: without freezing Inductor makes
    `addmm` of both, which writes the addend and then adds the product to it (0.83x of the sum of squared distances)."""
    found = set()
    meaning = dict(graph.equal)
    for node in graph.nodes:
        for term, other in (node.children, node.children[::-1]) if node.op == "add" else ():
            a, b = graph.types[term], graph.types[other]
            alike = a is not None and b is not None and a.shape == b.shape and a.rank == 2
            product = meaning.get(term, term)
            if graph.nodes[product].op == "matmul" and alike and uses.get(term, 1) == 1:
                found.add(product)
                break
    return frozenset(found)


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
