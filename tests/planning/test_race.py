"""Graphs that are timed by themselves, and those that cannot be."""

import pytest
import torch
from torch._inductor import config as inductor_config
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch.fx import Graph
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from torch_eqsat.counters import timings
from torch_eqsat.graph.calls import written_by
from torch_eqsat.graph.fx import STORED, mark_stored
from torch_eqsat.planning.race import NoRaceError, race


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


class Stored(CustomGraphPass):
    """Notes which calls Inductor is told to store."""

    def __init__(self):
        self.targets = []

    def uuid(self):
        return "stored"

    def __call__(self, graph):
        self.targets.append([str(node.target) for node in graph.nodes if STORED in node.meta])


@pytest.mark.slow
@pytest.mark.parametrize("freezing", [False, True])
def test_what_is_stored_is_stored_there_too(trace, freezing):
    module = trace(
        lambda x, w: (torch.constant_pad_nd(torch.sin(x), (0, 2)) @ w).cos(), torch.ones(4, 6), torch.ones(8)
    )
    (padded,) = (node for node in module.graph.nodes if "constant_pad" in str(node.target))
    mark_stored(padded)
    stored = Stored()
    with inductor_config.patch(post_grad_custom_pre_pass=stored, freezing=freezing, force_disable_caches=True):
        race([module.graph, module.graph], frozenset({1}), [torch.ones(4, 6), torch.ones(8)], 0.1)
    assert stored.targets == [["aten.constant_pad_nd.default"]] * 2


@pytest.mark.slow
def test_what_a_graph_writes_to_is_set_back_before_each_call(trace):
    """The position of a static cache ran out of bounds, and the race failed."""

    def step(cache, position, x):
        cache.index_copy_(0, position, x)
        position.add_(1)
        return cache.sum()

    inputs = torch.zeros(4, 8), torch.tensor([2]), torch.ones(1, 8)
    graph = trace(step, *inputs).graph
    with inductor_config.patch(force_disable_caches=True):
        found = race([graph, graph], frozenset(), inputs, 0.1)
    assert min(found.ms) > 0 and inputs[1].item() == 2


def test_what_a_call_writes_to(trace):
    def write(x, y):
        torch.sin(x, out=y)
        x.add_(1)
        return x.clone()

    graph = make_fx(write)(torch.ones(2), torch.ones(2)).graph
    x, y = graph.find_nodes(op="placeholder")
    assert [written_by(n) for n in graph.nodes if n.op == "call_function"] == [[y], [x], []]
