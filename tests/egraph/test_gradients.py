"""The forward never comes to depend on the gradients that the backward is given: the graph is cut between them."""

import pytest
import torch

from torch_eqsat.egraph.egraph import EGraph
from torch_eqsat.graph.capture import capture
from torch_eqsat.rewrites import catalogue

LAWS = catalogue()


def chunked(x, w, tangent):
    """Two chunks of a batch through two layers that share a weight, forward and backward."""
    chunks, late = x.split(2), tangent.split(2)
    weight = [a.mT @ (b @ w) for pair in zip(chunks, late, strict=True) for a, b in (pair, pair[::-1])]
    return torch.cat([chunk @ w @ w.mT for chunk in chunks]), torch.cat([t @ w @ w.mT for t in late]), sum(weight)


def sized_like(x, w, tangent):
    """A value that is a number in both: of the backward made like a gradient."""
    return x + 2.0 * torch.zeros_like(x), tangent + x * torch.zeros_like(tangent)


@pytest.mark.parametrize("function", [chunked, sized_like])
def test_no_form_of_a_forward_value_depends_on_gradients(trace, function):
    graph = trace(function, torch.rand(4, 3), torch.rand(3, 3), torch.rand(4, 3)).graph
    graph.find_nodes(op="placeholder")[2].target = "tangents_1"
    egraph = EGraph(LAWS)
    try:
        egraph.load(capture(graph).graph)
        for _ in range(4):
            egraph.apply(LAWS)
        snapshot, known = egraph.snapshot(), egraph._terms.known_of
        owned = zip(snapshot.nodes, snapshot.classes, strict=True)
        mixed = [node for node, c in owned if not known(c).late and any(known(child).late for child in node.children)]
        assert not mixed and any(known(c).late for c in snapshot.classes)
    finally:
        egraph.close()
