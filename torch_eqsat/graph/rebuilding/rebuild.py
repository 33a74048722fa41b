"""A chosen program (a term graph) back into the FX graph that it was captured from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch._inductor.pattern_matcher import stable_topological_sort
from torch.fx import Node as FxNode

from torch_eqsat.errors import RebuildError
from torch_eqsat.graph.calls import base_of, is_pinned, operands_of
from torch_eqsat.graph.capture import Capture
from torch_eqsat.graph.emitter import aten
from torch_eqsat.graph.fx import STORED, check_cut, late_nodes, outputs_of
from torch_eqsat.graph.lowering import lower
from torch_eqsat.graph.rebuilding.fx_emitter import FxEmitter, is_opaque
from torch_eqsat.graph.rebuilding.no_ops import base_without_no_ops
from torch_eqsat.graph.rebuilding.strides import copied_with_strides, same_strides
from torch_eqsat.graph.rounding import Unrounded
from torch_eqsat.ir.term import TermGraph


def rebuild(capture: Capture, program: TermGraph, origin: Sequence[int], *, frozen: bool = True) -> int:
    """Rewrite ``capture.fx`` in place so that it computes ``program``; the number of calls added. What laws make of
    numbers alone are buffers where weights are ``frozen`` and calls where they are not: Inductor allows no others.

    ``program.roots`` are the roots of the captured graph, in order; ``origin[i]`` is the captured term whose value
    program node i has, or -1. Raises RebuildError, with the graph in an undefined state, when an output would change
    its shape or dtype: call it on a copy first.
    """
    emitter = FxEmitter(capture, frozen)
    late, before = late_nodes(capture.fx), outputs_of(capture.fx)
    values, pinned = _realise(capture, program, origin, emitter)
    new_of = {root: values[new] for root, new in zip(capture.graph.roots, program.roots, strict=True)}
    _redirect(capture, emitter, pinned, new_of)
    stable_topological_sort(capture.fx)
    capture.fx.eliminate_dead_code(is_impure_node=is_pinned)
    capture.fx.lint()
    check_cut(capture.fx, late, before)
    left = set(capture.fx.nodes)
    return sum(node in left for node in emitter.made)


def _realise(
    capture: Capture, program: TermGraph, origin: Sequence[int], emitter: FxEmitter
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
    unrounded = Unrounded(program, values, frozen=emitter.frozen)
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
            value = unrounded.lower(emitter, index, args)
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
            per_column = _is_product_with_matrix(program, heavy) and bias.shape in ((x.shape[-1],), (1, x.shape[-1]))
            channels = (x.shape[1], *(1,) * (x.rank - 2)) if x.rank > 2 else ()
            per_channel = op == "conv" and bias.shape in (channels, (1, *channels)) and program.constant[other]
            if (per_column or per_channel) and bias.numel > 1:
                found[index] = heavy
                break
    return found


def _is_product_with_matrix(program: TermGraph, term: int) -> bool:
    node = program.nodes[term]
    weight = program.types[node.children[1]] if node.op == "matmul" else None
    return weight is not None and weight.rank == 2


def _with_bias(emitter: FxEmitter, program: TermGraph, index: int, heavy: int, values: list[Any]) -> Any:
    a, b = program.nodes[index].children
    other = b if a == heavy else a
    node = program.nodes[heavy]
    x, w = (values[child] for child in node.children)
    type_ = program.types[heavy]
    assert type_ is not None
    channels = type_.shape[-1 if node.op == "matmul" else 1]
    bias = emitter.call(aten.reshape.default, values[other], [channels])
    types = [t for c in (*node.children, other) if (t := program.types[c]) is not None]
    return lower(emitter, node, [x, w, bias], types)


def _redirect(capture: Capture, emitter: FxEmitter, pinned: dict[FxNode, list[Any]], new_of: dict[int, Any]) -> None:
    """Make pinned nodes and the output read the new values."""
    for node, operands in pinned.items():
        emitter.origin = node
        remaining = iter(emitter.lying_alike(operands, operands_of(node)) if is_opaque(node.target) else operands)
        node.args, node.kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda _, r=remaining: next(r))
    (output,) = capture.fx.find_nodes(op="output")
    # An output that stays has its memory for itself, whatever comes before it.
    stays = [old for old in operands_of(output) if new_of[capture.term[old]] is old]
    taken: dict[FxNode, FxNode] = {base_without_no_ops(old): base_of(old) for old in stays}
    chosen: dict[FxNode, FxNode] = {}
    for old in dict.fromkeys(operands_of(output)):
        new = new_of[capture.term[old]]
        if new is not old:
            _check_same(old, new)
            emitter.origin = old
            new = _as_fresh(emitter, old, new, taken)
        chosen[old] = new
        taken.setdefault(base_without_no_ops(new), base_of(old))
    for old, new in _sharing(emitter, chosen).items():
        if new is not old:
            output.replace_input_with(old, new)


def _sharing(emitter: FxEmitter, chosen: dict[FxNode, FxNode]) -> dict[FxNode, FxNode]:
    """``chosen``, the new outputs by the old ones, such that those that were views of one value are so again: the
    caller may write into one and read another."""
    groups: dict[FxNode, list[FxNode]] = {}
    for old in chosen:
        groups.setdefault(base_of(old), []).append(old)
    found = dict(chosen)
    for base, members in groups.items():
        if len({base_of(chosen[member]) for member in members}) > 1:
            for old in members:
                found[old] = _viewed(emitter, old, base, chosen[base]) if base in chosen else old
    return found


def _viewed(emitter: FxEmitter, old: FxNode, base: FxNode, new: FxNode) -> FxNode:
    """The view ``old`` of ``base``, of ``new`` instead."""
    if new is base or old is base:
        return new if old is base else old
    source, *others = old.args
    assert isinstance(source, FxNode), f"{old} is a view"
    operand = _viewed(emitter, source, base, new)
    emitter.origin = old
    return emitter.fresh(old.target, operand, *others, **old.kwargs)


def _check_same(old: FxNode, new: Any) -> None:
    a, b = old.meta.get("val"), new.meta.get("val") if isinstance(new, FxNode) else None
    same = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape and a.dtype == b.dtype
    if not same:
        raise RebuildError(f"output {old} : {a} would become {new} : {b}")


def _as_fresh(emitter: FxEmitter, old: FxNode, new: FxNode, taken: dict[FxNode, FxNode]) -> FxNode:
    """``new``, or a copy of it where the caller would see a difference: other strides, or memory shared with an input
    or another output that ``old`` did not share (the caller may write into what it gets)."""
    base = base_without_no_ops(new)
    shares_input = base.op != "call_function" and base is not base_of(old)
    shares_output = base in taken and taken[base] is not base_of(old)
    if same_strides(new, old) and not shares_input and not shares_output:
        return new
    if base is not base_of(new):  # a copy would be taken away first, and then what it copies
        return old
    # Where no call makes such strides the value is computed as it was, for this output alone.
    return copied_with_strides(emitter.fresh, new, old, returned=True) or old
