"""The terms that random ones are made of, with their values in sight."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torch_eqsat.ir.builder import Builder, GraphStore, Handle
from torch_eqsat.ir.term import FACTS, Node, TermGraph
from torch_eqsat.ir.types import TensorType
from torch_eqsat.verification.interpreter import Drawing, apply, draw_input

LARGEST = 1e6
NUMBERS = (1.0, 0.0, 0.5, -1.0, 2.0)


class Store(GraphStore):
    """Half of the inputs are constants, and so is what depends on constants alone."""

    def __init__(self, graph: TermGraph, rng: random.Random) -> None:
        super().__init__(graph)
        self.rng = rng

    def insert(self, node: Node, type_: TensorType, /) -> int:
        if node.op == "input":
            constant = self.rng.random() < 0.5 or any(name in FACTS for name, _ in node.attrs)
        else:
            constant = all(self.graph.constant[c] for c in node.children)
        return self.graph.add(node, type_, constant)


class Pool:
    """A term graph, the ``terms`` that may become operands, and the ``values`` of all nodes."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.graph = TermGraph()
        self.t = Builder(Store(self.graph, rng))
        self.values: dict[int, Tensor] = {}
        self.dtype = "float64" if rng.random() < 0.1 else "float32"
        self.terms: list[Handle] = []

    def leaf(self, shape: Sequence[int], dtype: str = "", bound: int = 2, **facts: float) -> Handle:
        """A new input; indices are below ``bound``."""
        attrs = {"shape": tuple(shape), "dtype": dtype or self.dtype, **facts}
        handle = self.t.apply("input", [], name=f"y{len(self.graph)}", **attrs)
        generator = torch.Generator().manual_seed(self.rng.randrange(1 << 40))
        self.values[handle.id] = draw_input(self.graph.nodes[handle.id], handle.type, Drawing(), generator, bound)
        return handle

    def evaluate(self, made: Handle) -> bool:
        """Compute ``made`` and what it is made of; whether all of it is finite and of moderate size."""
        for number in self.graph.reachable([made.id]):
            if number not in self.values:
                node = self.graph.nodes[number]
                types = [t for child in node.children if (t := self.graph.types[child]) is not None]
                value = apply(node, [self.values[child] for child in node.children], types, "float64")
                if not is_tame(value):
                    return False
                self.values[number] = value
        return True

    # Operands

    def floats(self, x: Handle) -> Handle:
        if not x.type.is_floating:
            return self.t.apply("convert", (x,), dtype=self.dtype)
        return x

    def partner(self, x: Handle) -> Handle:
        same = [y for y in self.terms if y.type == x.type]
        return self.rng.choice(same) if same and self.rng.random() < 0.5 else self.leaf(x.shape, x.type.dtype)

    def small(self, x: Handle) -> Handle:
        """What broadcasts to ``x``: of fewer elements, of fewer axes, or a number."""
        if x.type.is_floating and self.rng.random() < 0.3:
            return self.t.scalar(self.rng.choice(NUMBERS), x.type.dtype)
        shape = [n if self.rng.random() < 0.5 else 1 for n in x.shape]
        shape = shape[self.rng.randrange(max(1, x.rank)) :]
        if self.rng.random() < 0.15:
            return self.leaf(shape, x.type.dtype, value=self.rng.choice(NUMBERS))
        return self.leaf(shape, x.type.dtype)

    def other(self, x: Handle) -> Handle:
        return self.partner(x) if self.rng.random() < 0.5 else self.small(x)

    def axis(self, x: Handle) -> int:
        return self.rng.randrange(x.rank)

    def known_to_be(self, x: Handle, holds: Callable[[Tensor], Tensor]) -> Handle:
        if not self.evaluate(x) or not bool(holds(self.values[x.id]).all()):
            raise ValueError("outside of the function's domain")
        return x


def is_tame(value: Tensor) -> bool:
    """Whether all elements are finite and of moderate size."""
    return value.numel() == 0 or float(value.double().abs().max()) <= LARGEST
