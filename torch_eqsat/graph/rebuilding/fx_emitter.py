"""Adds ATen calls to the FX graph that was captured."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.lowering import lowerings
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import Graph
from torch.fx import Node as FxNode

from torch_eqsat.errors import RebuildError
from torch_eqsat.graph.calls import VIEWS, is_elementwise, operands_of
from torch_eqsat.graph.capture import SEPARATING_META, Call, Capture, Operand
from torch_eqsat.graph.emitter import aten, torch_dtype
from torch_eqsat.graph.fx import mark_stored
from torch_eqsat.graph.rebuilding.no_ops import NEUTRAL, operand_kept
from torch_eqsat.graph.rebuilding.strides import copied_with_strides, same_strides
from torch_eqsat.graph.replay import EXACT_NUMBER, STANDS_FOR
from torch_eqsat.graph.translate import TRANSLATIONS
from torch_eqsat.ir.types import TensorType

CARRIED_META = (
    "recompute",
    "ac_graph_id",
    "partitioner_tag",
    "autograd_backward",
    "stack_trace",
    "nn_module_stack",
    "seq_nr",
    "custom",
    "from_node",
)


class FxEmitter:
    """Adds calls to the captured graph, each call once, with the metadata that Inductor's passes read."""

    def __init__(self, capture: Capture, frozen: bool = True) -> None:
        self.graph: Graph = capture.fx
        self.frozen = self.keeps_whole = frozen
        self.made: list[FxNode] = []
        self.origin: FxNode | None = None
        self._made: dict[Any, Any] = {}
        self._constants = 0
        self._before = _first_mutation(capture.fx)
        self._captured = {node.target for node in capture.fx.nodes}  # which Inductor has to compile anyway
        inputs = [n.meta["val"] for n in capture.fx.nodes if isinstance(n.meta.get("val"), torch.Tensor)]
        self._fake_mode = torch._guards.detect_fake_mode(inputs)
        self._device = inputs[0].device if inputs else torch.device("cpu")  # a graph of sizes alone

    def device(self) -> torch.device:
        return self._device

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Any:
        if target is aten.reshape.default and list(args[0].meta["val"].shape) == list(args[1]):
            return args[0]
        if (kept := operand_kept(target, args, kwargs)) is not None:
            return kept
        apart = [(k, repr(self.origin.meta[k])) for k in SEPARATING_META if self.origin and k in self.origin.meta]
        key = (str(target), repr(args), repr(sorted(kwargs.items())), repr(apart))
        if key not in self._made:
            self._made[key] = self.fresh(target, *args, **kwargs)
        return self._made[key]

    def fresh(self, target: Any, *args: Any, **kwargs: Any) -> FxNode:
        """A new call, even where an equal one was made."""
        if target in select_decomp_table() and target not in lowerings and target not in self._captured:
            raise RebuildError(f"Inductor has no kernel for {target}, which it takes apart before this pass")
        if target is aten.view.default:  # strides of a rewritten operand may forbid a mere view
            target = aten.reshape.default
        fake = torch.fx.map_arg((args, kwargs), lambda n: n.meta["val"])
        with self._fake_mode:
            value = target(*fake[0], **fake[1])
        with self.graph.inserting_before(self._before):
            node = self.graph.call_function(target, args, kwargs)
        node.meta["val"] = value
        if self.origin is not None:
            node.meta.update({k: self.origin.meta[k] for k in CARRIED_META if k in self.origin.meta})
        self.made.append(node)
        return node

    def store(self, value: Any) -> None:
        if isinstance(value, FxNode):
            mark_stored(value)

    def repeat(self, call: Call, operands: list[Any], types: Sequence[TensorType | None]) -> Any:
        """The captured call on other operands, which lie in memory as the captured ones do where that may matter."""
        same = self.origin if self.origin is not None and self.origin.target == call.target else None
        self.origin = same or call.origin
        tensors = [self._tensor(operand, type_) for operand, type_ in zip(operands, types, strict=True)]
        if is_opaque(call.target):
            tensors = self.lying_alike(tensors, operands_of(self.origin))
        if call.target is aten.view.dtype and tensors[0] not in operands_of(self.origin):
            _check_rows_stay(tensors[0])

        def fill(value: Any) -> Any:
            if isinstance(value, Operand):
                return tensors[value.index]
            if isinstance(value, tuple):
                return [fill(v) for v in value]
            if isinstance(value, dict):
                return {k: fill(v) for k, v in value.items()}
            return value

        result = self.call(call.target, *(fill(a) for a in call.args), **fill(call.kwargs))
        if same is not None and isinstance(result, FxNode):
            result.meta[STANDS_FOR] = same.name
        return result

    def lying_alike(self, tensors: Sequence[Any], captured: Sequence[FxNode]) -> list[Any]:
        """``tensors`` with the strides of the ``captured`` operands: kernels of opaque calls may rely on them, and are
        silently wrong on others (attention on rows that are not contiguous)."""
        return [
            new if new is old or same_strides(new, old) else copied_with_strides(self.fresh, new, old) or new
            for new, old in zip(tensors, captured, strict=True)
        ]

    def _tensor(self, value: Any, type_: TensorType | None) -> Any:
        if isinstance(value, FxNode) or type_ is None:
            return value
        return self.number(value, type_.shape, torch_dtype(type_.dtype))

    def number(self, value: float, shape: Sequence[int], dtype: torch.dtype) -> Any:
        """A tensor of which each element is ``value``."""
        if not self.frozen:
            return self.call(aten.full.default, list(shape), value, dtype=dtype, device=self._device)
        node = self.constant(lambda: torch.full(tuple(shape), value, dtype=dtype, device=self._device))
        node.meta[EXACT_NUMBER] = value
        return node

    def constant(self, make: Callable[[], torch.Tensor]) -> Any:
        """A buffer of the graph's module: a factory operator would stop Inductor's folding of frozen expressions. Where
        weights are not frozen it is copied first, as tracing copies the tensors that a forward makes."""
        with unset_fake_temporarily():
            tensor = make()
            key = ("constant", str(tensor.dtype), tuple(tensor.shape), hash(tensor.double().cpu().numpy().tobytes()))
        if key in self._made:
            return self._made[key]
        module = self.graph.owning_module
        while hasattr(module, name := f"_eqsat_constant_{self._constants}"):
            self._constants += 1
        module.register_buffer(name, tensor)
        with self.graph.inserting_before(self._before):
            node = self.graph.get_attr(name)
        node.meta["val"] = self._fake_mode.from_tensor(tensor, static_shapes=True)
        self._made[key] = node if self.frozen else self.fresh(aten.lift_fresh_copy.default, node)
        return self._made[key]


def _check_rows_stay(operand: FxNode) -> None:
    """Raise RebuildError for an operand of a view in another dtype that has its elements side by side only until
    Inductor takes sums with zero away, whatever strides they had (joint_graph.remove_no_ops)."""
    source = operand
    while source.op == "call_function" and source.target in NEUTRAL and isinstance(source.args[0], FxNode):
        source = source.args[0]
    if not same_strides(source, operand):
        raise RebuildError(f"{operand} is viewed in another dtype, and {source}, which may take its place, is strided")


def is_opaque(target: Any) -> bool:
    """Whether nothing is known of how a call reads its operands. A view in another dtype asks for rows of elements that
    lie side by side."""
    if target is aten.view.dtype:
        return True
    known = target in TRANSLATIONS or is_elementwise(target) or getattr(target, "overloadpacket", None) in VIEWS
    return not known and target is not operator.getitem


def _first_mutation(graph: Graph) -> FxNode:
    """The node before which everything new has to stand: mutations come last in a functional graph."""
    for node in graph.nodes:
        mutates = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
        if node.op == "output" or mutates:
            return node
    raise RebuildError("graph without an output")
