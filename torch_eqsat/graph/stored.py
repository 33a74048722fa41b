"""What Inductor must store, and not compute anew wherever it is read."""

from __future__ import annotations

from torch.fx import Node

STORED = "inductor_realize_to_strides"


def mark_stored(node: Node) -> None:
    """Have Inductor store the value of ``node``, lying as it does in eager mode when the graph is lowered."""
    if node.op == "call_function":
        node.meta[STORED] = True
