"""Builds the right sides of laws: typed operator applications over the terms that a left side matched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch_eqsat.ir.intervals import analyse
from torch_eqsat.ir.known import Interval, Known
from torch_eqsat.ir.operators import OPERATORS, infer_type
from torch_eqsat.ir.term import FACTS, Attributes, Node, TermGraph, attributes
from torch_eqsat.ir.types import TensorType


@dataclass(frozen=True, slots=True)
class Handle:
    """A term inside a law: its id, its type and, where the pattern names an operator, that operator with its
    attributes and operands."""

    id: int
    type: TensorType
    op: str = ""
    attrs: Attributes = ()
    operands: tuple[Handle, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each axis."""
        return self.type.shape

    @property
    def rank(self) -> int:
        """The number of axes."""
        return self.type.rank

    @property
    def numel(self) -> int:
        """The number of elements."""
        return self.type.numel

    def __getitem__(self, name: str) -> Any:
        """The attribute ``name``. Raises KeyError where the pattern names no operator with it."""
        return dict(self.attrs)[name]


class TermStore(Protocol):
    """Where a builder puts terms: a TermGraph or an e-graph."""

    def insert(self, node: Node, type_: TensorType, /) -> int:
        """The id of ``node``, which is added if it is new."""
        ...

    def forms(self, term: int, /) -> list[Node]:
        """The ways in which ``term`` is known to be computed."""
        ...

    def type_of(self, term: int, /) -> TensorType:
        """The type of ``term``, which is a tensor."""
        ...

    def is_constant(self, term: int, /) -> bool:
        """Whether ``term`` depends on constants alone."""
        ...

    def known_of(self, term: int, /) -> Known:
        """What is known of the values of ``term``."""
        ...


def _known(type_: TensorType | None) -> TensorType:
    assert type_ is not None, "laws are built over tensors alone"
    return type_


class GraphStore:
    """A TermStore over a TermGraph (for examples and tests)."""

    def __init__(self, graph: TermGraph) -> None:
        self.graph = graph

    def insert(self, node: Node, type_: TensorType, /) -> int:
        constant = "factory" in OPERATORS[node.op].traits or any(name in FACTS for name, _ in node.attrs)
        constant |= bool(node.children) and all(self.graph.constant[child] for child in node.children)
        return self.graph.add(node, type_, constant)

    def forms(self, term: int, /) -> list[Node]:
        return [self.graph.nodes[term]]

    def type_of(self, term: int, /) -> TensorType:
        return _known(self.graph.types[term])

    def is_constant(self, term: int, /) -> bool:
        return self.graph.constant[term]

    def known_of(self, term: int, /) -> Known:
        return known_in(self.graph, term)


def known_in(graph: TermGraph, term: int) -> Known:
    """What is known of a term by what it is made of."""
    known: dict[int, Known] = {}
    for number in graph.reachable([term]):
        node = graph.nodes[number]
        types = [*(graph.types[child] for child in node.children), graph.types[number]]
        known[number] = analyse(node.op, dict(node.attrs), [known[child] for child in node.children], types)
    return known[term]


class Builder:
    """Applies operators. Each method raises TypeMismatchError when the operands do not fit, which ends the law's
    attempt at this match without harm. Trivial operators (a view of the same shape) return their operand."""

    def __init__(self, store: TermStore) -> None:
        self.store = store
        self._inputs = 0

    def apply(self, op: str, children: Sequence[Handle], **attrs: Any) -> Handle:
        """The operator ``op`` over ``children``, with all of its attributes."""
        return self._insert(op, attributes(**attrs), children)

    def forms(self, x: Handle) -> list[Node]:
        """The other ways in which the e-class of ``x`` is known to be computed. For guards that direct a law: they may
        only make it fire less often, since more forms may become known later."""
        return self.store.forms(x.id)

    def smaller_operand(self, node: Node, x: Handle) -> bool:
        """Whether an operand of ``node``, one of the forms of ``x``, has fewer elements than x."""
        return any(self.store.type_of(child).numel < x.numel for child in node.children)

    def like(self, node: Handle, *children: Handle, **changes: Any) -> Handle:
        """``node``'s operator over other operands, with some attributes changed."""
        return self.apply(node.op, children, **{**dict(node.attrs), **changes})

    def on(self, node: Handle, position: int, x: Handle, **changes: Any) -> Handle:
        """``node``'s operator with ``x`` at ``position`` and its own operands elsewhere, some attributes changed."""
        operands = node.operands
        return self.like(node, *operands[:position], x, *operands[position + 1 :], **changes)

    def _insert(self, op: str, attrs: Attributes, children: Sequence[Handle]) -> Handle:
        if "commutative" in OPERATORS[op].traits:
            children = sorted(children, key=lambda child: child.id)
        type_ = infer_type(op, dict(attrs), [child.type for child in children])
        node = Node(op, attrs, tuple(child.id for child in children))
        return Handle(self.store.insert(node, type_), type_, op, attrs, tuple(children))

    def input(self, shape: Sequence[int], dtype: str = "float32", **known: float) -> Handle:
        """A new input; ``known`` are facts about it (see torch_eqsat.ir.term.FACTS)."""
        self._inputs += 1
        return self.apply("input", [], name=f"x{self._inputs}", shape=tuple(shape), dtype=dtype, **known)

    def is_constant(self, x: Handle) -> bool:
        """Whether ``x`` depends on constants alone. As with :meth:`forms`, more may become known later."""
        return self.store.is_constant(x.id)

    def known(self, x: Handle, fact: str) -> Any:
        """What is known of the constant ``x`` (see torch_eqsat.ir.term.FACTS); None for nothing."""
        for node in self.forms(x):
            if node.op == "input" and fact in dict(node.attrs):
                return node[fact]
            if node.op == "scalar" and fact == "value":
                return node["value"]
        return None

    def interval(self, x: Handle) -> Interval | None:
        """The bounds within which ``x`` is known to lie, for every input."""
        return self.store.known_of(x.id).interval

    def scalar(self, value: float, dtype: str = "float32") -> Handle:
        """A number, of shape ()."""
        return self.apply("scalar", [], value=value, shape=(), dtype=dtype)

    def dirac(self, shape: Sequence[int], groups: int, dtype: str) -> Handle:
        """The convolution kernel of ``shape`` [O, I/groups, *k] that copies channel i to channel i."""
        return self.apply("dirac", [], shape=tuple(shape), groups=groups, dtype=dtype)

    def add(self, a: Handle, b: Handle) -> Handle:
        """a + b, broadcast; both of one dtype."""
        return self.apply("add", (a, b))

    def mul(self, a: Handle, b: Handle) -> Handle:
        """a · b, element by element and broadcast; both of one dtype."""
        return self.apply("mul", (a, b))

    def minus(self, a: Handle, b: Handle) -> Handle:
        """a − b, which the language writes as a sum."""
        return self.add(a, self.mul(b, self.scalar(-1.0, b.type.dtype)))

    def matmul(self, a: Handle, b: Handle) -> Handle:
        """A B: [m, k] by [k, n], a batch [b, m, k] by [b, k, n], or rows [..., m, k] of any rank by [k, n]."""
        return self.apply("matmul", (a, b))

    def view(self, x: Handle, shape: Sequence[int]) -> Handle:
        """x with another shape of as many elements, in the same order."""
        return x if tuple(shape) == x.shape else self.apply("view", (x,), shape=tuple(shape))

    def expand(self, x: Handle, shape: Sequence[int]) -> Handle:
        """x broadcast to ``shape``."""
        return x if tuple(shape) == x.shape else self.apply("expand", (x,), shape=tuple(shape))

    def permute(self, x: Handle, dims: Sequence[int]) -> Handle:
        """x whose axis i is the axis ``dims[i]`` of x."""
        return x if list(dims) == list(range(x.rank)) else self.apply("permute", (x,), dims=tuple(dims))

    def slice(self, x: Handle, dim: int, start: int, stop: int) -> Handle:
        """The elements ``start`` to ``stop`` − 1 of x along ``dim``."""
        whole = start == 0 and stop == x.shape[dim]
        return x if whole else self.apply("slice", (x,), dim=dim, start=start, stop=stop)

    def cat(self, parts: Sequence[Handle], dim: int) -> Handle:
        """``parts``, one after the other along ``dim``."""
        return parts[0] if len(parts) == 1 else self.apply("cat", parts, dim=dim)

    def pad(self, x: Handle, pads: Sequence[tuple[int, int]]) -> Handle:
        """x with zeros before and after it: ``pads`` has a pair for each axis."""
        return x if not any(map(any, pads)) else self.apply("pad", (x,), pads=tuple(pads))

    def filter_bank(
        self,
        x: Handle,
        coefficients: Sequence[Sequence[float]],
        *,
        dim: int,
        into: int,
        step: int = 1,
        dilation: int = 1,
    ) -> Handle:
        """Σₖ coefficients[i][k] · x[step · t + dilation · k] along ``dim``, for each i side by side along ``into``."""
        places = {"dim": dim, "into": into, "step": step, "dilation": dilation}
        return self.apply("filter_bank", (x,), **places, coefficients=coefficients)

    def reduce(self, x: Handle, kind: str, dims: Sequence[int]) -> Handle:
        """``kind`` ("sum", "mean", "amax", …) over ``dims``, which stay with size 1."""
        return self.apply("reduce", (x,), kind=kind, dims=tuple(sorted(dims)))
