"""``as_strided`` calls that are views of what lies contiguous, which the decomposition of group normalisation makes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Graph, Node

aten = torch.ops.aten


def reads_memory(node: Node) -> bool:
    """Whether ``node`` reads by addresses, and so depends on how its operand lies in memory."""
    return getattr(node.target, "overloadpacket", None) is aten.as_strided


def replace_contiguous_views(graph: Graph) -> None:
    """Turn each ``as_strided`` that reads all of a contiguous operand in order into a reshape: the same values, by
    position and no longer by address."""
    for node in graph.nodes:
        if reads_memory(node) and _is_view(node):
            node.target = aten.reshape.default
            node.args = (node.args[0], list(node.meta["val"].shape))
            node.kwargs = {}


def _is_view(node: Node) -> bool:
    operand, size, stride, *offset = node.args
    value = operand.meta.get("val") if isinstance(operand, Node) else None
    if not isinstance(value, torch.Tensor) or node.kwargs or any(o is not None for o in offset):
        return False
    own = _contiguous(value.shape, value.stride())
    return own and _contiguous(size, stride) and math.prod(size) == value.numel()


def _contiguous(size: Any, stride: Any) -> bool:
    """Whether elements of a tensor of known ``size`` and ``stride`` lie side by side in order."""
    if not isinstance(size, Sequence) or not all(type(n) is int for n in (*size, *stride)):
        return False
    expected = 1
    for length, step in zip(reversed(size), reversed(stride), strict=True):
        if length != 1 and step != expected:
            return False
        expected *= length
    return True
