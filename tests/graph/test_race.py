"""Which graphs cannot be timed by themselves. (Those that can are compiled: see tests/test_backend.py.)"""

import pytest
import torch
from torch.fx import Graph
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from torch_eqsat.cost.timings import timings
from torch_eqsat.graph.race import NoRaceError, race


def graph_of(name, value):
    graph = Graph()
    placeholder = graph.placeholder(name)
    placeholder.meta["val"] = value
    graph.output((placeholder,))
    return graph


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (graph_of("tangents_1", torch.empty(2)), "forward and backward"),
        (graph_of("x", ShapeEnv().create_unbacked_symint()), "symbolic sizes"),
    ],
)
def test_graphs_that_do_not_run_as_they_are(graph, reason):
    before = timings()
    with pytest.raises(NoRaceError, match=reason):
        race([graph, graph], frozenset(), [torch.ones(2)], 0.1)
    assert timings() == before
