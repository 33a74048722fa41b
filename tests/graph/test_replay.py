"""Graphs run call by call."""

import operator

import torch
from torch.fx import Graph, GraphModule

from torch_eqsat.graph.replay import Derived, Recording, _Replay, run

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


def test_what_is_derived_from_weights_is_computed_once(trace, monkeypatch):
    """And nothing else: not what depends on other inputs, or what the graph writes into."""

    def function(x, w, state):
        filters = torch.cat([w.exp(), w.neg()])
        return state.copy_(state + filters.sum()) + x @ filters, filters

    x, w, state = torch.randn(3, 4), torch.randn(2, 4), torch.randn(4)
    module = trace(function, x, w, state)
    derived = Derived(module.graph, {1, 2})
    assert {node.target.overloadpacket for node in derived.calls} == {aten.exp, aten.neg, aten.cat, aten.sum}
    first = run(module, [x, w, state], Recording(None), in_double=False, derived=derived)
    ran = []
    monkeypatch.setattr(_Replay, "_run", _noting(ran))
    for factor in (2.0, 3.0):
        made = run(module, [x * factor, w, state], Recording(None), in_double=False, derived=derived)
        plain = run(module, [x * factor, w, state], Recording(None), in_double=False)
        assert all(map(torch.equal, made.outputs, plain.outputs))
    assert torch.equal(first.outputs[1], made.outputs[1])
    names = [node.target.overloadpacket for node in ran if node.op == "call_function"]
    assert names.count(aten.cat) == names.count(aten.exp) == 2 and names.count(aten.mm) == 4


def test_nothing_is_derived_beyond_the_room(trace, monkeypatch):
    monkeypatch.setattr("torch_eqsat.graph.replay.MOST_DERIVED", 8)
    module = trace(lambda x, w: (x @ w.exp(), w.neg()), torch.randn(3, 4), torch.randn(4, 4))
    derived = Derived(module.graph, {1})
    x, w = torch.randn(3, 4), torch.randn(4, 4)
    for _ in range(2):
        (y, _z) = run(module, [x, w], Recording(None), in_double=True, derived=derived).outputs
        torch.testing.assert_close(y, x.double() @ w.double().exp())
        assert not derived.known()


def _noting(ran):
    before = _Replay._run

    def noting(self, n):
        ran.append(n)
        return before(self, n)

    return noting
