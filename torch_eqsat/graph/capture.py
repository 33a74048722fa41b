"""An FX graph of functional ATen calls as a term graph.

Every FX node becomes an opaque ``fx`` term over its operands' terms, so that the graph without any rewrite is always
there to be chosen; where the language knows the operator, its meaning is stated to be equal to that term. Terms that
depend on constants alone are cut off at their last node: they are inputs of the term graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch.fx import Graph
from torch.fx import Node as FxNode

from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.graph.aten.deciding import deciding
from torch_eqsat.graph.calls import (
    GETITEM,
    SYMBOLIC_NUMBER,
    is_elementwise,
    is_pinned,
    operands_of,
    positional,
    tensor_type,
)
from torch_eqsat.graph.emitter import aten
from torch_eqsat.graph.facts import copies_of_constants, known_facts
from torch_eqsat.graph.fx import is_gradient
from torch_eqsat.graph.translate import TRANSLATIONS, translate_item
from torch_eqsat.ir.builder import Builder, Handle, known_in
from torch_eqsat.ir.known import Known
from torch_eqsat.ir.term import Node, TermGraph, attributes
from torch_eqsat.ir.types import TensorType

# Nodes whose values differ here were put apart on purpose (activation checkpointing, the partitioner): never merged.
SEPARATING_META = ("recompute", "ac_graph_id", "partitioner_tag", "autograd_backward")

ROUNDS_OTHERWISE = (
    aten.div.Tensor,
    aten.div.Scalar,
    aten.addmm.default,
    aten.baddbmm.default,
    aten.convolution.default,
)


@dataclass(frozen=True, slots=True)
class Operand:
    """Stands for operand number ``index`` in the template of a call."""

    index: int

    def __repr__(self) -> str:
        return f"%{self.index}"


@dataclass(frozen=True, slots=True)
class Call:
    """A call with its operands taken out: what an ``fx`` or ``pointwise`` term does to them."""

    target: Any
    args: Any
    kwargs: Any
    origin: FxNode


@dataclass
class Capture:
    """The term graph of an FX graph and what leads back.

    ``term[n]`` is the term of FX node n; ``parts[t]`` are the terms of the language that the ``fx`` term t means (for
    its price); ``leaves[t]`` is the FX node behind input term t; ``calls`` gives calls by uid;
    ``pinned`` are the nodes that have to stay (they have effects), in order.
    """

    fx: Graph
    graph: TermGraph = field(default_factory=TermGraph)
    term: dict[FxNode, int] = field(default_factory=dict)
    parts: dict[int, tuple[int, ...]] = field(default_factory=dict)
    leaves: dict[int, FxNode] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)
    pinned: list[FxNode] = field(default_factory=list)

    @property
    def repeated(self) -> dict[int, int]:
        """How many further calls there are of terms that the graph computes more than once."""
        counts = Counter(term for node, term in self.term.items() if node.op == "call_function")
        return {t: n - 1 for t, n in counts.items() if n > 1 and self.graph.nodes[t].op == "fx"}

    def on_copy(self, fx: Graph, copy_of: Mapping[FxNode, FxNode]) -> Capture:
        """The same for ``fx``, a copy of the FX graph in which ``copy_of`` gives the copy of each node."""
        return replace(
            self,
            fx=fx,
            term={copy_of[node]: term for node, term in self.term.items()},
            leaves={term: copy_of[node] for term, node in self.leaves.items()},
            calls={uid: replace(call, origin=copy_of[call.origin]) for uid, call in self.calls.items()},
            pinned=[copy_of[node] for node in self.pinned],
        )


def capture(
    fx: Graph, static: Collection[FxNode] = (), exact: bool = False, modest: Collection[FxNode] = ()
) -> Capture:
    """The term graph of ``fx``; ``static`` are the placeholders that hold weights, ``modest`` those of them whose
    numbers are known to be so (see torch_eqsat.ir.term.FACTS). With ``exact`` operators whose meaning in the language
    rounds otherwise (a division as a product, a fused bias) stay opaque."""
    result = Capture(fx)
    constants = constant_nodes(fx, static)
    constants -= copies_of_constants(constants)
    same = _representatives(fx, constants)
    store = _Recorder(result, exact, modest, deciding(fx))
    for node in fx.nodes:
        if node.op == "output":
            result.graph.roots += [result.term[n] for n in operands_of(node) if n in result.term]
        elif node.op in ("placeholder", "get_attr") or node in constants:
            first = same.get(node, node)
            used = any(user not in constants for user in node.users)
            if (used or node.op == "placeholder") and first not in result.term:
                store.leaf(first, node in constants)
            if first in result.term:
                result.term[node] = result.term[first]
        else:
            store.call(node)
    result.graph.roots = list(dict.fromkeys(result.graph.roots))
    return result


def constant_nodes(fx: Graph, static: Collection[FxNode]) -> set[FxNode]:
    """Nodes that depend on ``static`` placeholders, attributes and factory operators alone."""
    constants: set[FxNode] = set()
    for node in fx.nodes:
        if node.op == "placeholder":
            if node in static:
                constants.add(node)
        elif node.op == "get_attr" or (
            node.op == "call_function"
            and not is_pinned(node)
            and all(n in constants for n in node.all_input_nodes)
            and tensor_type(node.meta.get("val")) is not None
        ):
            constants.add(node)
    return constants


def _representatives(fx: Graph, constants: Collection[FxNode]) -> dict[FxNode, FxNode]:
    """Of equal calls on constants the first: every layer of an unrolled loop transposes its weight again."""
    first: dict[Any, FxNode] = {}
    same: dict[FxNode, FxNode] = {}
    for node in fx.nodes:
        if node in constants:
            operands = tuple(same.get(n, n) for n in operands_of(node))  # copies are no constants
            key = (_uid(node), operands) if node.op == "call_function" else (node.op, node.target)
            same[node] = first.setdefault(key, node)
    return same


class _Recorder:
    """Adds terms to a Capture; also the TermStore through which translations add theirs."""

    def __init__(self, result: Capture, exact: bool, modest: Collection[FxNode], deciding: Collection[FxNode]) -> None:
        self.result = result
        self.exact, self.modest, self.deciding = exact, modest, deciding
        self.builder = Builder(self)
        self._made: list[int] = []

    def insert(self, node: Node, type_: TensorType, /) -> int:
        graph = self.result.graph
        factory = node.op in ("scalar", "dirac")
        constant = factory or (bool(node.children) and all(graph.constant[c] for c in node.children))
        index = graph.add(node, type_, constant)
        self._made.append(index)
        return index

    def forms(self, term: int, /) -> list[Node]:
        return [self.result.graph.nodes[term]]

    def is_constant(self, term: int, /) -> bool:
        return self.result.graph.constant[term]

    def known_of(self, term: int, /) -> Known:
        return known_in(self.result.graph, term)

    def type_of(self, term: int, /) -> TensorType:
        type_ = self.result.graph.types[term]
        assert type_ is not None
        return type_

    def leaf(self, node: FxNode, constant: bool) -> None:
        type_ = tensor_type(node.meta.get("val"))
        shape, dtype = (type_.shape, type_.dtype) if type_ else ((), "?")
        name = f"{'c' if constant else 'x'}{len(self.result.leaves)}"
        known = known_facts(node, self.modest) if type_ and (constant or node in self.modest) else {}
        if is_gradient(node):
            known["late"] = 1
        term = Node("input", attributes(name=name, shape=shape, dtype=dtype, **known), ())
        index = self.result.graph.add(term, type_, constant)
        self.result.term[node] = index
        self.result.leaves[index] = node

    def call(self, node: FxNode) -> None:
        result = self.result
        children = tuple(result.term[n] for n in operands_of(node))
        type_ = tensor_type(node.meta.get("val"))
        if is_pinned(node):
            uid = f"pinned {len(result.pinned)}"
            result.pinned.append(node)
        else:
            uid = _uid(node)
        result.calls.setdefault(uid, _call(node))
        shape = type_ and type_.shape
        index = result.graph.add(Node("fx", attributes(uid=uid, shape=shape), children), type_, False)
        result.term[node] = index
        if uid.startswith("pinned"):
            result.graph.roots.append(index)
        elif type_ is not None and index not in result.parts:
            self._translate(node, index, type_, uid, children)

    def _translate(self, node: FxNode, index: int, type_: TensorType, uid: str, children: tuple[int, ...]) -> None:
        self._made = []
        graph = self.result.graph
        if not all(t is None or t.is_known for t in (type_, *(graph.types[c] for c in children))):
            return
        try:
            meaning = self._meaning(node, type_)
        except (TypeMismatchError, TypeError, ValueError, IndexError, ArithmeticError):
            meaning = None  # a call outside of the language: it stays opaque
        if meaning is None and is_elementwise(node.target) and all(graph.types[c] is not None for c in children):
            handles = [Handle(c, t) for c in children if (t := graph.types[c]) is not None]
            meaning = self.builder.apply("pointwise", handles, uid=uid, dtype=type_.dtype) if handles else None
        if meaning is not None and meaning.type == type_:
            if not (self.exact and node.target in ROUNDS_OTHERWISE):
                graph.equal.append((index, meaning.id))
            self.result.parts[index] = tuple(self._made)
            if node.target is GETITEM:
                # The item stands for the work of the call that returned the tuple.
                self.result.parts[children[0]] = ()

    def _meaning(self, node: FxNode, type_: TensorType) -> Handle | None:
        if node.target is GETITEM:
            source, item = node.args
            if not isinstance(source, FxNode) or type(item) is not int or item < 0 or source.op != "call_function":
                return None
            if source.meta.get(SYMBOLIC_NUMBER):
                return None
            args, kwargs = self._handles(source)
            return translate_item(self.builder, source.target, args, kwargs, item, type_)
        translation = TRANSLATIONS.get(node.target)
        if translation is None or node in self.deciding:
            return None
        args, kwargs = positional(node.target, *self._handles(node))
        if set(kwargs) - {"dtype", "memory_format", "alpha", "beta"}:
            return None
        return translation(self.builder, args, kwargs, type_)

    def _handles(self, node: FxNode) -> tuple[Any, Any]:
        def handle(n: FxNode) -> Any:
            index = self.result.term[n]
            type_ = self.result.graph.types[index]
            if type_ is None or not type_.is_known:
                raise TypeMismatchError(f"{n} is no static tensor of a known dtype")
            return Handle(index, type_)

        args, kwargs = _map_nodes((node.args, node.kwargs), handle)
        return args, kwargs


def _map_nodes(value: Any, convert: Any) -> Any:
    """``value`` with each FX node replaced (torch.fx.map_arg insists on making immutable FX containers)."""
    if isinstance(value, FxNode):
        return convert(value)
    if isinstance(value, (tuple, list)):
        return tuple(_map_nodes(v, convert) for v in value)
    if isinstance(value, dict):
        return {k: _map_nodes(v, convert) for k, v in value.items()}
    return value


def _call(node: FxNode) -> Call:
    counter = iter(range(1 << 30))
    args, kwargs = _map_nodes((node.args, node.kwargs), lambda _: Operand(next(counter)))
    return Call(node.target, args, kwargs, node)


def _uid(node: FxNode) -> str:
    """What the call does, as text that is equal in every process."""
    call = _call(node)
    apart = {key: node.meta[key] for key in SEPARATING_META if key in node.meta}
    target = "getitem" if node.target is GETITEM else str(node.target)
    return f"{target}{call.args}{call.kwargs}{apart or ''}"
