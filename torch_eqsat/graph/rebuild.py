"""A chosen program (a term graph) back into the FX graph that it was captured from."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.lowering import lowerings
from torch._inductor.pattern_matcher import stable_topological_sort
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import Graph
from torch.fx import Node as FxNode

from torch_eqsat.errors import RebuildError
from torch_eqsat.graph.calls import VIEWS, base_of, is_elementwise, is_pinned, operands_of
from torch_eqsat.graph.capture import SEPARATING_META, Call, Capture, Operand
from torch_eqsat.graph.emitter import aten, torch_dtype
from torch_eqsat.graph.fx import STORED, mark_stored
from torch_eqsat.graph.lowering import lower
from torch_eqsat.graph.replay import EXACT_NUMBER, STANDS_FOR
from torch_eqsat.graph.strides import copied_with_strides, same_strides
from torch_eqsat.graph.translate import TRANSLATIONS
from torch_eqsat.ir.term import TermGraph
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


def rebuild(capture: Capture, program: TermGraph, origin: Sequence[int], *, frozen: bool = True) -> int:
    """Rewrite ``capture.fx`` in place so that it computes ``program``; the number of calls added. What laws make of
    numbers alone are buffers where weights are ``frozen`` and calls where they are not: Inductor allows no others.

    ``program.roots`` are the roots of the captured graph, in order; ``origin[i]`` is the captured term whose value
    program node i has, or -1. Raises RebuildError, with the graph in an undefined state, when an output would change
    its shape or dtype: call it on a copy first.
    """
    emitter = _FxEmitter(capture, frozen)
    values, pinned = _realise(capture, program, origin, emitter)
    new_of = {root: values[new] for root, new in zip(capture.graph.roots, program.roots, strict=True)}
    _redirect(capture, emitter, pinned, new_of)
    stable_topological_sort(capture.fx)
    capture.fx.eliminate_dead_code(is_impure_node=is_pinned)
    capture.fx.lint()
    return emitter.added


def _realise(
    capture: Capture, program: TermGraph, origin: Sequence[int], emitter: _FxEmitter
) -> tuple[list[Any], dict[FxNode, list[Any]]]:
    """The FX node (or number) of each program node, children first, and the new operands of pinned nodes."""
    uses = Counter(child for node in program.nodes for child in node.children)
    uses.update(program.roots)
    originals = {
        (str(capture.graph.nodes[t]["uid"]), tuple(operands_of(n))): n
        for n, t in reversed(capture.term.items())
        if capture.graph.nodes[t].op == "fx"
    }
    leaf_of = {capture.graph.nodes[t]: n for t, n in capture.leaves.items()}
    node_of_term = {t: n for n, t in reversed(capture.term.items())}
    fused = _biases(program, uses)
    with_bias = set(fused.values())
    pinned_by_uid = {f"pinned {number}": n for number, n in enumerate(capture.pinned)}
    pinned: dict[FxNode, list[Any]] = {}
    values: list[Any] = []
    for index, node in enumerate(program.nodes):
        emitter.origin = node_of_term.get(origin[index])
        args = [values[child] for child in node.children]
        if node.op == "input":
            value = leaf_of[node]
        elif node.op in ("fx", "pointwise"):
            uid = str(node["uid"])
            value = pinned_by_uid.get(uid) or originals.get((uid, tuple(args)))
            if uid in pinned_by_uid:
                pinned[value] = args
            if value is None:
                of_operands = [program.types[child] for child in node.children]
                value = emitter.repeat(capture.calls[uid], args, of_operands)
        elif index in fused:
            value = _with_bias(emitter, program, index, fused[index], values)
        elif index in with_bias:
            value = None  # made together with its bias
        else:
            types = [t for c in node.children if (t := program.types[c]) is not None]
            value = lower(emitter, node, args, types)
        if emitter.origin is not None and STORED in emitter.origin.meta:
            emitter.store(value)
        values.append(value)
    return values, pinned


def _biases(program: TermGraph, uses: Counter[int]) -> dict[int, int]:
    """Sums that add a bias to a matmul or a convolution read nowhere else: sum -> matmul or convolution.

    Inductor's packed kernels and GEMM epilogues take the bias as an operand of addmm and convolution.
    """
    found: dict[int, int] = {}
    for index, node in enumerate(program.nodes):
        if node.op != "add":
            continue
        for heavy, other in (node.children, node.children[::-1]):
            x, bias, y = program.types[heavy], program.types[other], program.types[index]
            if uses[heavy] != 1 or x is None or bias is None or y != x or program.nodes[other].op == "scalar":
                continue
            op = program.nodes[heavy].op
            per_column = op == "matmul" and x.rank == 2 and bias.shape in ((x.shape[1],), (1, x.shape[1]))
            channels = (x.shape[1], *(1,) * (x.rank - 2)) if x.rank > 2 else ()
            per_channel = op == "conv" and bias.shape in (channels, (1, *channels)) and program.constant[other]
            if (per_column or per_channel) and bias.numel > 1:
                found[index] = heavy
                break
    return found


def _with_bias(emitter: _FxEmitter, program: TermGraph, index: int, heavy: int, values: list[Any]) -> Any:
    a, b = program.nodes[index].children
    other = b if a == heavy else a
    node = program.nodes[heavy]
    x, w = (values[child] for child in node.children)
    type_ = program.types[heavy]
    assert type_ is not None
    channels = type_.shape[1]
    bias = emitter.call(aten.reshape.default, values[other], [channels])
    types = [t for c in (*node.children, other) if (t := program.types[c]) is not None]
    return lower(emitter, node, [x, w, bias], types)


class _FxEmitter:
    """Adds calls to the captured graph, each call once, with the metadata that Inductor's passes read."""

    def __init__(self, capture: Capture, frozen: bool = True) -> None:
        self.graph: Graph = capture.fx
        self.frozen = frozen
        self.added = 0
        self.origin: FxNode | None = None
        self._made: dict[Any, Any] = {}
        self._constants = 0
        self._before = _first_mutation(capture.fx)
        inputs = [n.meta["val"] for n in capture.fx.nodes if isinstance(n.meta.get("val"), torch.Tensor)]
        self._fake_mode = torch._guards.detect_fake_mode(inputs)
        self._device = inputs[0].device

    def device(self) -> torch.device:
        return self._device

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Any:
        if target is aten.reshape.default and list(args[0].meta["val"].shape) == list(args[1]):
            return args[0]
        apart = [(k, repr(self.origin.meta[k])) for k in SEPARATING_META if self.origin and k in self.origin.meta]
        key = (str(target), repr(args), repr(sorted(kwargs.items())), repr(apart))
        if key not in self._made:
            self._made[key] = self.fresh(target, *args, **kwargs)
        return self._made[key]

    def fresh(self, target: Any, *args: Any, **kwargs: Any) -> FxNode:
        """A new call, even where an equal one was made."""
        if target in select_decomp_table() and target not in lowerings:
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
        self.added += 1
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
        node.meta["val"] = self._fake_mode.from_tensor(tensor)
        self._made[key] = node if self.frozen else self.fresh(aten.lift_fresh_copy.default, node)
        return self._made[key]


def _check_rows_stay(operand: FxNode) -> None:
    """Raise RebuildError for an operand of a view in another dtype that has its elements side by side only until
    Inductor takes sums with zero away, whatever strides they had (joint_graph.remove_no_ops)."""
    source = operand
    while source.op == "call_function" and source.target in _MAY_GO and isinstance(source.args[0], FxNode):
        source = source.args[0]
    if not same_strides(source, operand):
        raise RebuildError(f"{operand} is viewed in another dtype, and {source}, which may take its place, is strided")


_MAY_GO = frozenset([aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.clone.default])


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


def _redirect(capture: Capture, emitter: _FxEmitter, pinned: dict[FxNode, list[Any]], new_of: dict[int, Any]) -> None:
    """Make pinned nodes and the output read the new values."""
    for node, operands in pinned.items():
        emitter.origin = node
        remaining = iter(emitter.lying_alike(operands, operands_of(node)) if is_opaque(node.target) else operands)
        node.args, node.kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda _, r=remaining: next(r))
    (output,) = capture.fx.find_nodes(op="output")
    # An output that stays has its memory for itself, whatever comes before it.
    stays = [old for old in operands_of(output) if new_of[capture.term[old]] is old]
    taken: dict[FxNode, FxNode] = {base_of(old): base_of(old) for old in stays}
    for old in dict.fromkeys(operands_of(output)):
        new = new_of[capture.term[old]]
        if new is not old:
            _check_same(old, new)
            emitter.origin = old
            new = _as_fresh(emitter, old, new, taken)
            output.replace_input_with(old, new)
        taken.setdefault(base_of(new), base_of(old))


def _check_same(old: FxNode, new: Any) -> None:
    a, b = old.meta.get("val"), new.meta.get("val") if isinstance(new, FxNode) else None
    same = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape and a.dtype == b.dtype
    if not same:
        raise RebuildError(f"output {old} : {a} would become {new} : {b}")


def _as_fresh(emitter: _FxEmitter, old: FxNode, new: FxNode, taken: dict[FxNode, FxNode]) -> FxNode:
    """``new``, or a copy of it where the caller would see a difference: other strides, or memory shared with an input
    or another output that ``old`` did not share (the caller may write into what it gets)."""
    base = base_of(new)
    shares_input = base.op != "call_function" and base is not base_of(old)
    shares_output = base in taken and taken[base] is not base_of(old)
    if same_strides(new, old) and not shares_input and not shares_output:
        return new
    # Where no call makes such strides the value is computed as it was, for this output alone.
    return copied_with_strides(emitter.fresh, new, old) or old
