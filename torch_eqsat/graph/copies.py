"""Copies of FX graphs, and changes of them that are made as a whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.fx import Graph, GraphModule
from torch.fx import Node as FxNode


def copied(graph: Graph) -> tuple[Graph, dict[FxNode, FxNode]]:
    """A copy of ``graph`` in a module of its own, and the copy of each node but the output."""
    copy = Graph()
    copy_of: dict[FxNode, FxNode] = {}
    copy.output(copy.graph_copy(graph, copy_of))
    _copy_meta_of_output(graph, copy)
    return GraphModule(graph.owning_module, copy).graph, copy_of


def copy_of(graph: Graph) -> Graph:
    """A copy of ``graph`` in a module of its own."""
    return copied(graph)[0]


@contextmanager
def undone_on_error(graph: Graph) -> Iterator[None]:
    """Put ``graph`` back, with new nodes, if the block raises."""
    backup = copy_of(graph)
    try:
        yield
    except BaseException:
        become(graph, backup)
        raise


def become(graph: Graph, other: Graph) -> None:
    """Make ``graph`` a copy of ``other``, with new nodes."""
    for node in reversed(list(graph.nodes)):
        graph.erase_node(node)
    graph.output(graph.graph_copy(other, {}))
    _copy_meta_of_output(other, graph)


def _copy_meta_of_output(source: Graph, target: Graph) -> None:
    (old,), (new,) = source.find_nodes(op="output"), target.find_nodes(op="output")
    new.meta = dict(old.meta)
