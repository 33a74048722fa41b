"""Questions about FX nodes: their types and operands, whether they have effects, whose memory they may be a view of."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Graph
from torch.fx import Node as FxNode

from torch_eqsat.ir.types import TensorType

aten = torch.ops.aten
GETITEM = operator.getitem


def tensor_type(value: Any) -> TensorType | None:
    """The type of a plain strided tensor with static sizes; None for everything else."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_quantized:
        return None
    if not all(type(n) is int for n in value.shape) or value.numel() == 0:
        return None
    return TensorType(tuple(value.shape), str(value.dtype).removeprefix("torch."))


def is_elementwise(target: Any) -> bool:
    """Whether each element of the result depends on the corresponding elements of the operands alone."""
    if target in (aten.clone.default, torch.ops.prims.convert_element_type.default):
        return True
    return isinstance(target, torch._ops.OpOverload) and torch.Tag.pointwise in target.tags


def operands_of(node: FxNode) -> list[FxNode]:
    """FX nodes among a node's arguments in order of appearance, with repetitions."""
    found: list[FxNode] = []

    def visit(operand: FxNode) -> FxNode:
        found.append(operand)
        return operand

    torch.fx.map_arg((node.args, node.kwargs), visit)
    return found


def positional(target: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Arguments of ``target`` with those in their places that may stand there, given by name or not."""
    args, kwargs = list(args), dict(kwargs)
    if isinstance(target, torch._ops.OpOverload):
        for argument in target._schema.arguments[len(args) :]:
            if argument.kwarg_only or not kwargs:
                break
            args.append(kwargs.pop(argument.name) if argument.name in kwargs else argument.default_value)
    return args, kwargs


_AXES = frozenset(["dim", "dims", "into", "step", "stride", "padding", "dilation", "kernel_size", "groups", "filters"])


def positions_of_axes(target: Any) -> set[int]:
    """The arguments of ``target`` that hold axes, steps and the like, none of which is made of a tensor's sizes."""
    if not isinstance(target, torch._ops.OpOverload) or target is torch.ops.prims.copy_strided.default:
        return set()  # a row of a result lies as far from the next as its sizes tell
    return {place for place, argument in enumerate(target._schema.arguments) if argument.name in _AXES}


SYMBOLIC_NUMBER = "eqsat_symbolic_number"
"""Metadata of a call in which a number stands for a symbol that the call computes with, and that is no size."""


def written_by(node: FxNode) -> list[FxNode]:
    """The operands that a call writes into."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    args, kwargs = positional(node.target, node.args, dict(node.kwargs))
    given = [*zip(node.target._schema.arguments, args, strict=False)]
    given += [(a, kwargs[a.name]) for a in node.target._schema.arguments if a.name in kwargs]
    found: list[FxNode] = []
    for argument, value in given:
        if argument.alias_info is not None and argument.alias_info.is_write:
            torch.fx.map_arg(value, found.append)
    return found


def is_pinned(node: FxNode) -> bool:
    """Whether ``node`` has effects or draws random numbers, so that it can be neither merged, moved nor dropped; or
    computes with a symbol, so that it cannot be repeated with the number that stands for it."""
    if node.op != "call_function":
        return True
    target = node.target
    if target is GETITEM or is_arithmetic(node):
        return False
    if node.meta.get(SYMBOLIC_NUMBER):
        return True
    if not isinstance(target, torch._ops.OpOverload):
        return True
    if target._schema.is_mutable or "unbacked_bindings" in node.meta or node.is_impure(impure_random=False):
        return True
    return torch.Tag.nondeterministic_seeded in target.tags and not _is_attention_without_dropout(node)


def is_arithmetic(node: FxNode) -> bool:
    """Whether ``node`` computes with numbers, as with symbolic sizes: an operator of Python's, or one of torch for
    them (``torch.sym_max``)."""
    module, name = (str(getattr(node.target, field, "")) for field in ("__module__", "__name__"))
    is_python = module in ("_operator", "math") and node.target is not GETITEM
    return is_python or (module == "torch" and name.lstrip("_").startswith("sym_"))


# Higher-order operators that run a body again and again, and into which Inductor carries no constants.
LOOPS = frozenset({"while_loop", "while_loop_stack_output", "scan", "associative_scan", "map", "map_impl"})


def is_loop(node: FxNode) -> bool:
    """Whether ``node`` is a higher-order operator that loops."""
    return isinstance(node.target, torch._ops.HigherOrderOperator) and node.target.name() in LOOPS


def _is_attention_without_dropout(node: FxNode) -> bool:
    """Attention operators are tagged as random because they can drop out; most calls do not."""
    if node.target is not aten._scaled_dot_product_flash_attention_for_cpu.default:
        return False
    dropout = node.args[3] if len(node.args) > 3 else node.kwargs.get("dropout_p", 0.0)
    return bool(dropout == 0.0)


_VIEW_NAMES = (
    "view reshape _unsafe_view permute expand slice select squeeze unsqueeze alias transpose t as_strided detach "
    "split split_with_sizes unbind diagonal unfold"
)
VIEWS = frozenset(getattr(aten, name) for name in _VIEW_NAMES.split())


def _is_view(target: Any) -> bool:
    """Whether a result may be memory of the first operand: as the schema says, which leaves some out."""
    if getattr(target, "overloadpacket", None) in VIEWS:
        return True
    made = target._schema.returns if isinstance(target, torch._ops.OpOverload) else ()
    return any(value.alias_info is not None and not value.alias_info.is_write for value in made)


def base_of(node: FxNode) -> FxNode:
    """The node whose memory ``node`` may be a view of."""
    while node.op == "call_function":
        if not _is_view(node.target) and node.target is not GETITEM:
            break
        source = node.args[0]
        if not isinstance(source, FxNode) or (node.target is GETITEM and base_of(source) is source):
            break
        node = source
    return node


def written_inputs(graph: Graph) -> list[FxNode]:
    """The placeholders that ``graph`` writes into, in order."""
    written = {base_of(operand) for node in graph.nodes for operand in written_by(node)}
    return [node for node in graph.find_nodes(op="placeholder") if node in written]
