"""Grows random terms of every operator, with values in sight: what is drawn stays finite and of moderate size."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence

from torch import Tensor

from bench.laws.fuzz_operators import Operators
from bench.laws.fuzz_pool import Pool, is_tame
from torch_eqsat.errors import EqsatError
from torch_eqsat.ir.term import Node, TermGraph
from torch_eqsat.laws.example import build_example
from torch_eqsat.laws.law import Law
from torch_eqsat.verification.interpreter import Drawing, draw_inputs, evaluate
from torch_eqsat.verification.variants import perturbed

SHAPES = ((2, 4), (4, 4), (1, 4), (4,), (), (2, 4, 2), (3, 4, 4), (1, 2, 4, 4), (2, 4, 2, 2), (1, 4, 3, 3), (1, 2, 5))
ELEMENTS = 512


class Grower:
    """A term graph that grows operator by operator."""

    def __init__(self, rng: random.Random, laws: Sequence[Law]) -> None:
        self.rng = rng
        self.pool = Pool(rng)
        self.graph = self.pool.graph
        if laws and rng.random() < 0.6:
            self._plant(rng.choice(rng.choice(laws).examples))
        if not self.pool.terms:
            self.pool.terms.append(self.pool.leaf(rng.choice(SHAPES)))
        self.operators = Operators(self.pool).by_name

    def _plant(self, example: str) -> None:
        """Begin with an example of a law, or a variant of one: what laws are about is rare in random terms."""
        with contextlib.suppress(EqsatError, IndexError, KeyError, ValueError, TypeError, RuntimeError):
            text = perturbed(example, self.rng) if self.rng.random() < 0.5 else example
            root = build_example(text, self.pool.t)
            self.graph.roots = [root.id]
            inputs = draw_inputs(self.graph, Drawing(seed=self.rng.randrange(1 << 20)))
            values = evaluate(self.graph, inputs)
            if all(is_tame(value) for value in values.values()):
                self.pool.values = values
                self.pool.terms.append(root)

    def grow(self) -> None:
        """Apply one operator, if what comes of it is finite and small."""
        terms = self.pool.terms
        x = terms[-1 - self.rng.randrange(min(4, len(terms)))]
        name = self.rng.choice(list(self.operators))
        with contextlib.suppress(EqsatError, IndexError, KeyError, ValueError, RuntimeError, NotImplementedError):
            made = self.operators[name](x)
            if made.numel <= ELEMENTS and self.pool.evaluate(made):
                terms.append(made)

    def result(self) -> tuple[TermGraph, dict[str, Tensor]]:
        """What the last terms need of the graph, and the values of inputs by name."""
        roots = list(dict.fromkeys(x.id for x in self.pool.terms[-self.rng.choice((1, 1, 2)) :]))
        graph, known = below(self.graph, roots), self.pool.values
        values = {
            node["name"]: known[i] for i, node in enumerate(self.graph.nodes) if node.op == "input" and i in known
        }
        return graph, {node["name"]: values[node["name"]] for node in graph.nodes if node.op == "input"}


def below(graph: TermGraph, roots: Sequence[int]) -> TermGraph:
    """The part of ``graph`` that ``roots`` need, with those as its roots."""
    part = TermGraph()
    number: dict[int, int] = {}
    for old in graph.reachable(roots):
        node = graph.nodes[old]
        moved = Node(node.op, node.attrs, tuple(number[child] for child in node.children))
        number[old] = part.add(moved, graph.types[old], graph.constant[old])
    part.roots = [number[root] for root in roots]
    return part
