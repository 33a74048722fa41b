"""Graphs run call by call."""

import operator

import torch
from torch.fx import Graph, GraphModule

from torch_eqsat.graph.replay import Recording, run

aten = torch.ops.aten


def test_a_size_is_computed_anew_in_each_run():
    """Sizes that a graph computes are no calls of other libraries, whose results are made up or recorded."""
    graph = Graph()
    length = graph.placeholder("length")
    twice = graph.call_function(operator.mul, (length, 2))
    twice.meta["val"] = 64
    longer = graph.call_function(torch.sym_max, (twice, 5))
    longer.meta["val"] = 64
    graph.output((graph.call_function(aten.full.default, ([longer], 1.0)),))
    module = GraphModule(torch.nn.Module(), graph)
    recording = Recording(lambda *_: 64)
    for number, size in ((3, 6), (1, 5)):
        (y,) = run(module, [number], recording, in_double=True).outputs
        assert y.shape == (size,)
