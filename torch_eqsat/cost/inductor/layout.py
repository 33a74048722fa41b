"""How images lie in memory on a CPU under freezing, which decides what gathers of pixels and slices of channels cost.

oneDNN's convolutions read and write images with the channels last, and what Inductor fuses follows what it reads, or
what a convolution needs; inputs and outputs of the graph are taken to be contiguous. A gather that finds the channels
last on both sides moves whole vectors of them. Any other reads single elements: a bilinear upsampling by 2 of 256
channels took 0.19 ms there and 1.95 ms of a contiguous image (AMD EPYC, family 26).
"""

from __future__ import annotations

from collections import Counter

from torch_eqsat.cost.inductor.fusion import is_packed
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.term import TermGraph, meant


class Layouts:
    """Which values of ``graph`` lie with their channels last; an operator as captured and its meaning are one value.
    The roots are taken to be outputs."""

    def __init__(self, graph: TermGraph) -> None:
        self.graph = graph
        self._meaning = dict(graph.equal)
        self._outputs = {self._value(root) for root in graph.roots}
        self._order = self._operands_first()
        self._by_itself: dict[int, bool] = {}
        for term in self._order:
            self._by_itself[term] = self._lies_by_itself(term)
        self._channels_last = self._as_used()

    def gathers_of_channels(self) -> frozenset[int]:
        """The ``index`` terms among what the roots need that move whole vectors of channels."""
        return frozenset(t for t in self._order if self.graph.nodes[t].op == "index" and self._moves_channels(t))

    def copies_of_slices(self) -> Counter[int]:
        """How often the ``slice`` terms among what the roots need are copied: oneDNN reads pixels whose channels lie
        side by side, so each convolution of some channels of an image first has them copied. NASNet-A with the
        pointwise convolutions of one input merged was predicted 3 % faster, and was 7 % slower."""
        return Counter(operand for term in self._order if (operand := self._sliced_operand(term)) is not None)

    def _moves_channels(self, term: int) -> bool:
        """Whether the gather ``term`` finds the channels last on both sides."""
        operand = self._operands(term)[0]
        return self._channels_last[term] and self._channels_last[operand]

    def _sliced_operand(self, term: int) -> int | None:
        """The slice of channels that ``term`` is a convolution of."""
        if not self._is_packed(term):
            return None
        operand = self._operands(term)[0]
        node = self.graph.nodes[operand]
        return operand if node.op == "slice" and node["dim"] == 1 else None

    def _value(self, term: int) -> int:
        return meant(self._meaning, term)

    def _operands(self, term: int) -> list[int]:
        return [self._value(child) for child in self.graph.nodes[term].children]

    def _operands_first(self) -> list[int]:
        done: dict[int, None] = {}
        stack = [(root, False) for root in self._outputs]
        while stack:
            term, expanded = stack.pop()
            if expanded:
                done[term] = None
            elif term not in done:
                stack.append((term, True))
                stack += [(operand, False) for operand in self._operands(term) if operand not in done]
        return list(done)

    def _lies_by_itself(self, term: int) -> bool:
        follows = self._follows(term) and any(self._by_itself[operand] for operand in self._operands(term))
        return follows or self._is_packed(term)

    def _as_used(self) -> dict[int, bool]:
        """How values lie, where what is fused follows its users; a convolution's need comes before that of others."""
        wanted: dict[int, bool] = {}
        lying: dict[int, bool] = {}
        for term in reversed(self._order):
            by_itself = self._by_itself[term]
            made_for_users = self._follows(term) and self.graph.nodes[term].op != "slice"
            used = wanted.get(term, by_itself) if made_for_users else by_itself
            lying[term] = used and term not in self._outputs
            for operand in self._operands(term):
                if self._is_packed(term):
                    wanted[operand] = True
                elif self._follows(term):
                    wanted.setdefault(operand, lying[term])
        return lying

    def _is_packed(self, term: int) -> bool:
        node, types = self.graph.nodes[term], self.graph.types
        if node.op != "conv" or not self._is_image(term):
            return False
        return is_packed(node, types[node.children[0]], [self.graph.constant[c] for c in node.children])

    def _follows(self, term: int) -> bool:
        node = self.graph.nodes[term]
        if node.op == "index":
            return node["first"] == 2 and self._is_image(term) and self._is_image(self._operands(term)[0])
        return self._is_image(term) and OPERATORS[node.op].follows_layout

    def _is_image(self, term: int) -> bool:
        type_ = self.graph.types[term]
        return type_ is not None and type_.rank == 4
