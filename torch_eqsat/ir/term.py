"""Terms: operators applied to terms, shared by hash-consing in a :class:`TermGraph`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch_eqsat.ir.types import TensorType

Attributes = tuple[tuple[str, Any], ...]

FACTS = ("repeats", "eye", "upper", "value", "weight", "modest", "tame", "least", "most")
"""Attributes of inputs that say what is known of a constant: ``repeats`` s (it holds 0, 0, …, 1, 1, … with each number
s times), ``eye`` (an identity matrix), ``upper`` (true strictly above the diagonal), ``value`` (all elements are this
number), ``least`` and ``most`` (bounds of integers), ``modest`` (finite, and none above 2^16 in magnitude), ``tame``
(computed of modest ones alone), ``weight`` (it is a constant: in examples). That an input is ``late``, a gradient that
a backward graph is given, is said in the same way."""


def attributes(**values: Any) -> Attributes:
    """Attributes of an operator as a sorted, hashable tuple; lists become tuples.

    >>> attributes(dims=[1, 0])
    (('dims', (1, 0)),)
    """
    return tuple(sorted((name, _hashable(value)) for name, value in values.items()))


def _hashable(value: Any) -> Any:
    return tuple(_hashable(v) for v in value) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True, slots=True)
class Node:
    """One operator application; ``children`` are indices into the graph (or e-class ids, inside an e-graph)."""

    op: str
    attrs: Attributes
    children: tuple[int, ...]

    def __getitem__(self, name: str) -> Any:
        return dict(self.attrs)[name]


class TermGraph:
    """A graph of terms in which equal terms are one node.

    ``nodes[i]`` has type ``types[i]`` (None for values that are no static tensors: tuples, symbolic sizes) and is
    ``constant[i]`` when it depends on constants alone. Children always come before their parents.
    ``equal`` lists pairs of nodes known to compute the same value (an operator as captured and its meaning in the
    language); ``roots`` are the nodes that must be available.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.types: list[TensorType | None] = []
        self.constant: list[bool] = []
        self.equal: list[tuple[int, int]] = []
        self.roots: list[int] = []
        self._index: dict[Node, int] = {}

    def __len__(self) -> int:
        return len(self.nodes)

    def add(self, node: Node, type_: TensorType | None, constant: bool) -> int:
        """The index of ``node``, added if it is new."""
        index = self._index.get(node)
        if index is None:
            index = self._index[node] = len(self.nodes)
            self.nodes.append(node)
            self.types.append(type_)
            self.constant.append(constant)
        return index

    def relabel(self, index: int, node: Node) -> None:
        """Put ``node`` in place of the one at ``index``, which has the same operands."""
        del self._index[self.nodes[index]]
        self.nodes[index] = node
        self._index[node] = index

    def reachable(self, roots: Iterable[int]) -> list[int]:
        """Indices reachable from ``roots``, ascending (so children come first)."""
        seen: set[int] = set()
        stack = list(roots)
        while stack:
            index = stack.pop()
            if index not in seen:
                seen.add(index)
                stack.extend(self.nodes[index].children)
        return sorted(seen)

    def digest(self) -> str:
        """A hash of the whole graph (structure, types, constants, equalities, roots): equal across processes."""
        rows = [self.nodes, self.types, self.constant, self.equal, self.roots]
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    def format(self, roots: Sequence[int] | None = None) -> str:
        """One line a node, as text that tests and reports compare."""
        lines = []
        for index in self.reachable(self.roots if roots is None else roots):
            node, type_ = self.nodes[index], self.types[index]
            attrs = "".join(f" {name}={value}" for name, value in node.attrs)
            operands = ", ".join(f"%{child}" for child in node.children)
            lines.append(f"%{index} = {node.op}({operands}){attrs} : {_format_type(type_)}")
        return "\n".join(lines)


def meant(meaning: Mapping[int, int], term: int) -> int:
    """What ``term`` is in the language, by the ``meaning`` of captured calls. What a call means may be the value of
    another call, as that of a copy is."""
    while term in meaning:
        term = meaning[term]
    return term


def _format_type(type_: TensorType | None) -> str:
    return "?" if type_ is None else f"{type_.dtype}{list(type_.shape)}"
