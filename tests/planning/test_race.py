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
from torch_eqsat.planning.race import BLOCKS, Contest, NoRaceError, contest, race


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


# Candidates timed in turn, on a clock that the candidates themselves move


class Machine:
    """A clock, and work that takes ``ms`` of it, or what ``disturbed`` makes of that at the time."""

    def __init__(self, disturbed=lambda now, ms: ms):
        self.now, self.order, self._disturbed = 0.0, [], disturbed

    def work(self, name, ms):
        def call():
            self.order.append(name)
            self.now += self._disturbed(self.now, ms) / 1e3

        return call

    def contest(self, *times, seconds=1.0):
        calls = [self.work(name, ms) for name, ms in enumerate(times)]
        return contest(calls, seconds, lambda: self.now, lambda: self.now)


def test_the_faster_of_two():
    found = Machine().contest(5.0, 4.9)
    assert found.ms == pytest.approx((5.0, 4.9))
    assert found.faster(1, 0) and not found.faster(0, 1)


def test_equal_ones_are_undecided():
    found = Machine().contest(5.0, 5.0)
    assert found.ms[0] == pytest.approx(found.ms[1])
    jittered = Contest((5.0, 5.01), ((5.0, 5.1, 5.0), (5.1, 5.0, 5.1)))
    assert not jittered.faster(0, 1) and not jittered.faster(1, 0)


def test_a_disturbance_meets_all():
    """Half of the time the machine is four times as slow: measured one after the other, the slower one would win."""
    found = Machine(lambda now, ms: 4 * ms if now < 0.5 else ms).contest(5.0, 4.0)
    assert found.faster(1, 0)


def test_noise_beyond_the_difference_refuses():
    machine = Machine()
    noise = iter([1.0, 1.3, 1.2, 0.9, 1.1, 1.4, 0.8] * 1000)
    machine._disturbed = lambda now, ms: ms * next(noise)
    found = machine.contest(500.0, 499.0, seconds=0.0)
    assert not found.faster(0, 1) and not found.faster(1, 0)


def test_a_long_call_still_gets_all_blocks():
    machine = Machine()
    found = machine.contest(10_000.0, 20_000.0)
    assert [len(blocks) for blocks in found.blocks] == [BLOCKS, BLOCKS]
    assert len(machine.order) == 2 * (2 + BLOCKS)  # a warm-up, a look at how long it takes, a round for each block


def test_short_calls_are_repeated():
    machine = Machine()
    machine.contest(0.01, 0.01, seconds=0.1)
    assert machine.order[4:104] == [0] * 100
