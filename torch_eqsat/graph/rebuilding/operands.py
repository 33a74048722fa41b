"""Symbols that a graph computes with, in place of making sizes of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.fx import Graph
from torch.fx import Node as FxNode

from torch_eqsat.graph.calls import SYMBOLIC_NUMBER
from torch_eqsat.graph.capture import constant_nodes

_NUMBERS = ("Tensor", "Optional[Tensor]", "number", "Optional[number]", "float", "Optional[float]")


def computes_with_symbol(node: FxNode) -> bool:
    """Whether an operand of arithmetic is a symbol: `x * n` is that, `x.view(n)` is not."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    arguments = node.target._schema.arguments
    given = [*zip(arguments, node.args, strict=False)]
    given += [(argument, node.kwargs[argument.name]) for argument in arguments if argument.name in node.kwargs]
    operands = [v for argument, v in given if str(argument.type) in _NUMBERS and isinstance(v, FxNode)]
    return any(isinstance(v.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool)) for v in operands)


def steps_along_symbol(node: FxNode) -> bool:
    """Whether a slice takes every k-th element of an axis whose size is a symbol: which rows of k elements there are
    depends on what is left over at the end."""
    if node.target is not torch.ops.aten.slice.Tensor or len(node.args) < 5 or not isinstance(node.args[0], FxNode):
        return False
    dim = node.args[1]
    return not isinstance(dim, int) or type(node.args[0].meta["val"].shape[dim]) is not int


def mark_symbolic_numbers(copy: Graph, original_of: Mapping[FxNode, FxNode]) -> None:
    """Mark the calls of ``copy``, a graph with numbers in place of symbols, that compute with such a number or go along
    its axis in steps: laws would make others of it, which cannot be carried back. What is made of factories alone is
    left as it is anyway."""
    factories = constant_nodes(copy, ())
    for node, original in original_of.items():
        if node not in factories and (computes_with_symbol(original) or steps_along_symbol(original)):
            node.meta[SYMBOLIC_NUMBER] = True
