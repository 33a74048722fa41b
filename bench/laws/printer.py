"""Writes terms in the language of examples (torch_eqsat/laws/example.py)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.term import Node, TermGraph
from torch_eqsat.ir.types import TensorType

LETTERS = {"int64": "ijkl", "bool": "mpqo"}
FLOATS, SHARED = "abcdefgh", "uvwxyz"


@dataclass(frozen=True, slots=True)
class Written:
    """Terms as text, and the input tensors that they name."""

    inputs: tuple[tuple[str, str], ...]
    terms: tuple[str, ...]

    def __str__(self) -> str:
        """One example with these terms, which denotes the last one."""
        return ", ".join([*(f"{name} := {text}" for name, text in self.inputs), *self.terms])


def write_terms(graph: TermGraph, roots: Sequence[int]) -> Written:
    """The terms below ``roots``, written like examples. Inputs have names; a term that several terms read is named
    where it is first written.

    >>> from torch_eqsat.ir.builder import Builder, GraphStore
    >>> from torch_eqsat.laws.example import build_example
    >>> graph = TermGraph()
    >>> term = build_example("add(y := matmul([2, 3], [3, 2]), permute(y, dims=[1, 0]))", Builder(GraphStore(graph)))
    >>> str(write_terms(graph, [term.id]))
    'a := [2, 3], b := [3, 2], add(permute(u := matmul(a, b), dims=[1, 0]), u)'
    """
    writer = _Writer(graph, roots)
    terms = tuple(writer.term(root) for root in roots)
    return Written(tuple(writer.inputs), terms)


class _Writer:
    def __init__(self, graph: TermGraph, roots: Sequence[int]) -> None:
        self.graph = graph
        reachable = graph.reachable(roots)
        uses = Counter(child for number in reachable for child in graph.nodes[number].children)
        self.shared = {number for number in reachable if uses[number] + roots.count(number) > 1}
        self.size: dict[int, int] = {}
        for number in reachable:
            node = graph.nodes[number]
            self.size[number] = (node.op != "scalar") + sum(self.size[child] for child in node.children)
        self.names: dict[int, str] = {}
        self.inputs: list[tuple[str, str]] = []
        self.free: dict[str, Iterator[str]] = {}

    def _name(self, number: int, letters: str) -> str:
        names = self.free.setdefault(letters, _names(letters))
        self.names[number] = next(names)
        return self.names[number]

    def term(self, number: int) -> str:
        """The term in full where it is first written, its name after that."""
        if number in self.names:
            return self.names[number]
        node, type_ = self.graph.nodes[number], self.graph.types[number]
        assert type_ is not None
        if node.op == "input":
            name = self._name(number, LETTERS.get(type_.dtype, FLOATS))
            self.inputs.append((name, _input(node, type_)))
            return name
        if node.op == "scalar":
            return f"{node['value']:g}"
        text = self._application(node)
        return f"{self._name(number, SHARED)} := {text}" if number in self.shared else text

    def _application(self, node: Node) -> str:
        operands = [t for child in node.children if (t := self.graph.types[child]) is not None]
        implied = OPERATORS[node.op].defaults(operands) if operands else {}
        attrs = [f"{k}={_value(v)}" for k, v in node.attrs if k not in implied or implied[k] != v]
        children = self._ordered(node.children) if "commutative" in OPERATORS[node.op].traits else node.children
        return f"{node.op}({', '.join([*map(self.term, children), *attrs])})"

    def _ordered(self, children: Sequence[int]) -> list[int]:
        """The operands of a commutative operator in their usual order: large terms first, numbers last."""
        named = list(self.names)
        order = {child: named.index(child) if child in self.names else len(named) for child in children}
        return sorted(children, key=lambda child: (-self.size[child], order[child], child))


def _names(letters: str) -> Iterator[str]:
    yield from letters
    number = 1
    while True:
        yield from (f"{letter}{number}" for letter in letters)
        number += 1


def _input(node: Node, type_: TensorType) -> str:
    known = [f"{k}={_value(v)}" for k, v in node.attrs if k not in ("name", "shape", "dtype")]
    kind = {"int64": "integers", "bool": "booleans"}.get(type_.dtype)
    return f"{kind}({', '.join([*map(str, type_.shape), *known])})" if kind else _value(type_.shape)


def _value(value: Any) -> str:
    return f"[{', '.join(map(_value, value))}]" if isinstance(value, (tuple, list)) else repr(value)
