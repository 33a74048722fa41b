"""What is asked of FX graphs and their nodes."""

from __future__ import annotations

import torch
from torch.fx import Graph, Node

aten = torch.ops.aten

STORED = "inductor_realize_to_strides"
"""The mark of what Inductor must store, and not compute anew wherever it is read."""

# Namespaces of operators that communicate.
COLLECTIVES = frozenset({"_c10d_functional", "_c10d_functional_autograd", "c10d", "_dtensor", "symm_mem", "fsdp"})
_BY_ADDRESS = frozenset({aten.as_strided, aten.as_strided_, aten.as_strided_copy, aten.as_strided_scatter})


def mark_stored(node: Node) -> None:
    """Have Inductor store the value of ``node``, lying as it does in eager mode when the graph is lowered."""
    if node.op == "call_function":
        node.meta[STORED] = True


def uses_addresses(node: Node) -> bool:
    """Whether ``node`` reads or writes by addresses, and so depends on how its operand lies in memory."""
    return getattr(node.target, "overloadpacket", None) in _BY_ADDRESS


def why_untouchable(graph: Graph) -> str:
    """Why a graph must not be rewritten at all; "" if it may."""
    for node in graph.nodes:
        namespace = getattr(node.target, "namespace", "")
        if namespace in COLLECTIVES:
            return f"ranks have to agree on the order of {node.target}"
        if uses_addresses(node):
            return f"{node.target} depends on a layout in memory that a rewrite may change"
    return ""
