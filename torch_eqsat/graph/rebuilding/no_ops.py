"""Calls that change nothing: sums with zero and products with one.

Inductor takes them away, so that their operand stands in their place (torch 2.14.1, remove_no_ops in
torch/_inductor/fx_passes/joint_graph.py): a result would then be the memory of an input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import Node as FxNode
from torch.fx.experimental.symbolic_shapes import statically_known_true

from torch_eqsat.graph.calls import base_of
from torch_eqsat.graph.emitter import aten

NEUTRAL = {aten.add.Tensor: 0, aten.sub.Tensor: 0, aten.mul.Tensor: 1, aten.div.Tensor: 1}
"""The number that changes nothing, by the call."""
_COPIES = frozenset([aten.lift_fresh_copy.default, aten.reshape.default, aten.view.default, aten.expand.default])


def base_without_no_ops(node: FxNode) -> FxNode:
    """The node whose memory ``node`` may be a view of once calls that change nothing are gone."""
    base = base_of(node)
    while base.op == "call_function" and (operand := operand_kept(base.target, base.args, base.kwargs)) is not None:
        base = base_of(operand)
    return base


def operand_kept(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> FxNode | None:
    """The operand that a call returns as it is, of the shape and dtype of its result; None where it changes it."""
    if target not in NEUTRAL or kwargs or len(args) != 2:
        return None
    either = target in (aten.add.Tensor, aten.mul.Tensor)
    for operand, other in (args, args[::-1])[: 1 + either]:
        if isinstance(operand, FxNode) and _is_number(other, NEUTRAL[target]) and _is_like_result(operand, other):
            return operand
    return None


def _is_like_result(operand: FxNode, other: Any) -> bool:
    """Whether the result has the shape and the dtype of ``operand``. Symbolic sizes are not guarded."""
    x = operand.meta.get("val")
    y = other.meta.get("val") if isinstance(other, FxNode) else other
    if not isinstance(x, torch.Tensor) or not x.is_floating_point() or torch.result_type(x, y) != x.dtype:
        return False
    sizes = tuple(y.shape) if isinstance(y, torch.Tensor) else ()
    fits = (
        statically_known_true(n == 1) or statically_known_true(n == m)
        for n, m in zip(sizes[::-1], tuple(x.shape)[::-1], strict=False)
    )
    return len(sizes) <= x.dim() and all(fits)


def _is_number(value: Any, number: int) -> bool:
    """Whether all elements of ``value`` are ``number``, as far as it is written in the graph."""
    if not isinstance(value, FxNode):
        return type(value) in (int, float) and value == number
    if value.op == "get_attr":
        held = getattr(value.graph.owning_module, str(value.target), None)
        return isinstance(held, torch.Tensor) and _are_all(held, number)
    if value.target is aten.full.default:
        return _is_number(value.args[1], number)
    return value.target in _COPIES and _is_number(value.args[0], number)


def _are_all(held: torch.Tensor, number: int) -> bool:
    with unset_fake_temporarily(), torch.no_grad():
        return bool((held == number).all())
