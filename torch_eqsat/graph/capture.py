"""An FX graph of functional ATen calls as a term graph.

Every FX node becomes an opaque ``fx`` term over its operands' terms, so that the graph without any rewrite is always
there to be chosen; where the language knows the operator, its meaning is stated to be equal to that term. Terms that
depend on constants alone are cut off at their last node: they are inputs of the term graph.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import Graph
from torch.fx import Node as FxNode

from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.graph.translate import GETITEM, TRANSLATIONS, aten, is_elementwise, translate_item
from torch_eqsat.ir.term import Node, TermGraph, attributes
from torch_eqsat.ir.types import TensorType
from torch_eqsat.rules.builder import Builder, Handle

# Nodes whose values differ here were put apart on purpose (activation checkpointing, the partitioner): never merged.
SEPARATING_META = ("recompute", "ac_graph_id", "partitioner_tag", "autograd_backward")

ROUNDS_OTHERWISE = (aten.div.Tensor, aten.addmm.default, aten.baddbmm.default, aten.convolution.default)
FOLDED_PREFIX = "_eqsat_folded_"
LARGEST_KNOWN = 1 << 16  # elements of an index whose values are looked at


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


def tensor_type(value: Any) -> TensorType | None:
    """The type of a plain strided tensor with static sizes; None for everything else."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized:
        return None
    if not all(type(n) is int for n in value.shape) or value.numel() == 0:
        return None
    return TensorType(tuple(value.shape), str(value.dtype).removeprefix("torch."))


def capture(fx: Graph, static: Collection[FxNode] = (), exact: bool = False) -> Capture:
    """The term graph of ``fx``; ``static`` are the placeholders that hold weights. With ``exact`` operators whose
    meaning in the language rounds otherwise (a division as a product, a fused bias) stay opaque."""
    result = Capture(fx)
    constants = constant_nodes(fx, static)
    same = _representatives(fx, constants)
    store = _Recorder(result, exact)
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


def operands_of(node: FxNode) -> list[FxNode]:
    """FX nodes among a node's arguments in order of appearance, with repetitions."""
    found: list[FxNode] = []

    def visit(operand: FxNode) -> FxNode:
        found.append(operand)
        return operand

    torch.fx.map_arg((node.args, node.kwargs), visit)
    return found


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


def known_repeats(node: FxNode) -> int:
    """s if the value of ``node`` is known now and is 0, 0, …, 1, 1, … with each number s times (what upsampling by s
    reads); 0 otherwise."""
    type_ = tensor_type(node.meta.get("val"))
    if (
        type_ is None
        or type_.dtype != "int64"
        or type_.numel > LARGEST_KNOWN
        or max(type_.shape, default=1) < type_.numel
    ):
        return 0
    value = _known_value(node, {})
    if value is None or value.numel() < 2:
        return 0
    with unset_fake_temporarily():
        flat = value.flatten().tolist()
    times = flat.count(0)
    return times if times and flat == [i // times for i in range(len(flat))] else 0


def _known_value(node: FxNode, known: dict[FxNode, torch.Tensor | None]) -> torch.Tensor | None:
    """The value of a small term of factory operators and folded buffers, evaluated; None for any other. ``known`` holds
    what was asked before."""
    if node not in known:
        type_ = tensor_type(node.meta.get("val"))
        known[node] = _evaluate(node, known) if type_ is not None and type_.numel <= LARGEST_KNOWN else None
    return known[node]


def _evaluate(node: FxNode, known: dict[FxNode, torch.Tensor | None]) -> torch.Tensor | None:
    if node.op == "get_attr":
        value = getattr(node.graph.owning_module, str(node.target), None)
        folded = isinstance(value, torch.Tensor) and str(node.target).startswith(FOLDED_PREFIX)
        return value if folded else None
    if node.op != "call_function" or is_pinned(node):
        return None
    operands = {n: _known_value(n, known) for n in node.all_input_nodes}
    if any(value is None for value in operands.values()):
        return None
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), operands.__getitem__)
    with unset_fake_temporarily(), torch.no_grad():
        return node.target(*args, **kwargs)


def _representatives(fx: Graph, constants: Collection[FxNode]) -> dict[FxNode, FxNode]:
    """Of equal calls on constants the first: every layer of an unrolled loop transposes its weight again."""
    first: dict[Any, FxNode] = {}
    same: dict[FxNode, FxNode] = {}
    for node in fx.nodes:
        if node in constants:
            operands = tuple(same[n] for n in operands_of(node))
            key = (_uid(node), operands) if node.op == "call_function" else (node.op, node.target)
            same[node] = first.setdefault(key, node)
    return same


def is_pinned(node: FxNode) -> bool:
    """Whether ``node`` has effects or draws random numbers, so that it can be neither merged, moved nor dropped."""
    if node.op != "call_function":
        return True
    target = node.target
    if target is GETITEM:
        return False
    if not isinstance(target, torch._ops.OpOverload):
        return True
    if target._schema.is_mutable or "unbacked_bindings" in node.meta or node.is_impure(impure_random=False):
        return True
    return torch.Tag.nondeterministic_seeded in target.tags and not _is_attention_without_dropout(node)


def _is_attention_without_dropout(node: FxNode) -> bool:
    """Attention operators are tagged as random because they can drop out; most calls do not."""
    if node.target is not aten._scaled_dot_product_flash_attention_for_cpu.default:
        return False
    dropout = node.args[3] if len(node.args) > 3 else node.kwargs.get("dropout_p", 0.0)
    return bool(dropout == 0.0)


class _Recorder:
    """Adds terms to a Capture; also the TermStore through which translations add theirs."""

    def __init__(self, result: Capture, exact: bool) -> None:
        self.result = result
        self.exact = exact
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

    def type_of(self, term: int, /) -> TensorType:
        type_ = self.result.graph.types[term]
        assert type_ is not None
        return type_

    def leaf(self, node: FxNode, constant: bool) -> None:
        type_ = tensor_type(node.meta.get("val"))
        shape, dtype = (type_.shape, type_.dtype) if type_ else ((), "?")
        name = f"{'c' if constant else 'x'}{len(self.result.leaves)}"
        known = {"repeats": times} if constant and (times := known_repeats(node)) else {}
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
        try:
            meaning = self._meaning(node, type_)
        except (TypeMismatchError, TypeError, ValueError, IndexError):
            meaning = None  # a call outside of the language: it stays opaque
        graph = self.result.graph
        if meaning is None and is_elementwise(node.target) and all(graph.types[c] is not None for c in children):
            handles = [Handle(c, t) for c in children if (t := graph.types[c]) is not None]
            meaning = self.builder.apply("pointwise", handles, uid=uid, dtype=type_.dtype) if handles else None
        if meaning is not None and meaning.type == type_:
            if not (self.exact and node.target in ROUNDS_OTHERWISE):
                graph.equal.append((index, meaning.id))
            self.result.parts[index] = tuple(self._made)

    def _meaning(self, node: FxNode, type_: TensorType) -> Handle | None:
        if node.target is GETITEM:
            source, item = node.args
            if not isinstance(source, FxNode) or type(item) is not int or item < 0 or source.op != "call_function":
                return None
            args, kwargs = self._handles(source)
            return translate_item(self.builder, source.target, args, kwargs, item, type_)
        translation = TRANSLATIONS.get(node.target)
        if translation is None:
            return None
        args, kwargs = self._handles(node)
        if set(kwargs) - {"dtype"}:  # the translations read positional arguments, as Dynamo writes them
            return None
        return translation(self.builder, args, kwargs, type_)

    def _handles(self, node: FxNode) -> tuple[Any, Any]:
        def handle(n: FxNode) -> Any:
            index = self.result.term[n]
            type_ = self.result.graph.types[index]
            if type_ is None:
                raise TypeMismatchError(f"{n} is no static tensor")
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


_VIEW_NAMES = (
    "view reshape _unsafe_view permute expand slice select squeeze unsqueeze alias transpose t as_strided detach "
    "split split_with_sizes unbind diagonal unfold"
)
VIEWS = frozenset(getattr(aten, name) for name in _VIEW_NAMES.split())


def base_of(node: FxNode) -> FxNode:
    """The node whose memory ``node`` may be a view of."""
    while node.op == "call_function":
        packet = getattr(node.target, "overloadpacket", None)
        if packet not in VIEWS and node.target is not GETITEM:
            break
        source = node.args[0]
        if not isinstance(source, FxNode) or (node.target is GETITEM and base_of(source) is source):
            break
        node = source
    return node
