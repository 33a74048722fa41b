"""Graphs that must not be rewritten at all."""

from __future__ import annotations

from torch.fx import Graph

from torch_eqsat.graph.strided import uses_addresses

# Namespaces of operators that communicate.
COLLECTIVES = frozenset({"_c10d_functional", "_c10d_functional_autograd", "c10d", "_dtensor", "symm_mem", "fsdp"})


def why_untouchable(graph: Graph) -> str:
    """Why a graph must not be rewritten at all; "" if it may."""
    for node in graph.nodes:
        namespace = getattr(node.target, "namespace", "")
        if namespace in COLLECTIVES:
            return f"ranks have to agree on the order of {node.target}"
        if uses_addresses(node):
            return f"{node.target} depends on a layout in memory that a rewrite may change"
    return ""
