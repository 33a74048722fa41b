"""What is asked of FX graphs and their nodes."""

from __future__ import annotations

import torch
from torch.fx import Graph, Node
from torch.utils._pytree import tree_leaves

from torch_eqsat.errors import RebuildError

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


def outputs_of(graph: Graph) -> list[Node]:
    """The nodes that ``graph`` returns, with repetitions."""
    return [leaf for leaf in tree_leaves(graph.output_node().args) if isinstance(leaf, Node)]


def is_gradient(node: Node) -> bool:
    """Whether ``node`` is a gradient that a graph of forward and backward is given."""
    return node.op == "placeholder" and "tangents" in str(node.target)


def late_nodes(graph: Graph) -> set[Node]:
    """The nodes that depend on gradients that ``graph`` is given: the graph is cut in two before them."""
    found: set[Node] = set()
    for node in graph.nodes:
        if is_gradient(node) or any(n in found for n in node.all_input_nodes):
            found.add(node)
    return found


def check_cut(graph: Graph, late: set[Node], before: list[Node]) -> None:
    """Raise RebuildError where a result of ``graph`` depends on gradients that was none of the ``late`` nodes
    ``before``."""
    now = late_nodes(graph) if late else set()
    for old, new in zip(before, outputs_of(graph), strict=True):
        if new in now and old not in late:
            raise RebuildError(f"{new}, a result of the forward, would depend on gradients")


def why_untouchable(graph: Graph) -> str:
    """Why a graph must not be rewritten at all; "" if it may."""
    for node in graph.nodes:
        namespace = getattr(node.target, "namespace", "")
        if namespace in COLLECTIVES:
            return f"ranks have to agree on the order of {node.target}"
        if uses_addresses(node):
            return f"{node.target} depends on a layout in memory that a rewrite may change"
    return ""
