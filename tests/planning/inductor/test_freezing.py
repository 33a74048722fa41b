"""Freezing where Inductor has no constants: loops over weights, and what does not compile when frozen."""

import copy
import logging

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch._functorch.aot_autograd import aot_module_simplified
from torch._higher_order_ops.associative_scan import associative_scan
from torch._higher_order_ops.map import map as map_rows
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch._inductor import config

from torch_eqsat import report as reports
from torch_eqsat.backend import COUNTERS
from torch_eqsat.planning.inductor import compiling, watching
from torch_eqsat.planning.inductor.freezing import let_go

pytestmark = [pytest.mark.usefixtures("fresh"), pytest.mark.slow]
OPTIONS = {
    "freezing": True,
    "eqsat.strict": True,
    "eqsat.measure_seconds": 0,
    "eqsat.seconds": 2,
    "force_disable_caches": True,
}


class Looping(nn.Module):
    """A loop that reads the weights of a layer, which is used after it as well; ``before`` is used outside alone."""

    def __init__(self, loop):
        super().__init__()
        self.before, self.inside = nn.Linear(8, 8), nn.Linear(8, 8)
        self.first = nn.Parameter(torch.rand(4, 8))
        self.register_buffer("start", torch.tensor(0))
        self.loop = loop

    def forward(self, x):
        return self.inside(self.loop(self, self.before(x)))


def layer_repeated(model, x):
    return while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, torch.tanh(model.inside(a))), (torch.tensor(0), x))[1]


def weight_turned_before(model, x):
    weight = model.inside.weight.t() * 2
    return while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, torch.tanh(a @ weight)), (torch.tensor(0), x))[1]


def weight_carried(model, x):
    carried = torch.tensor(0), model.first * 1.0
    return while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, torch.tanh(a + x)), carried)[1]


def buffer_counts(model, x):
    carried = model.start + 1, x
    return while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, torch.tanh(model.inside(a))), carried)[1]


def layer_scanned(model, x):
    def step(carry, row):
        new = torch.tanh(model.inside(carry) + row)
        return new, new.clone()

    return scan(step, x[0], x)[1]


def rows_mapped(model, x):
    return map_rows(lambda row: torch.tanh(model.inside(row)), x)


def scanned_associatively(model, x):
    return associative_scan(lambda a, b: a * b + 0.1, model.inside(x), 0, combine_mode="generic")


def branches(model, x):
    return torch.cond(x.sum() > 0, lambda x: model.inside(x), lambda x: model.inside(x) * 2, (x,))


@pytest.mark.parametrize(
    "loop",
    [
        layer_repeated,
        weight_turned_before,
        weight_carried,
        buffer_counts,
        layer_scanned,
        rows_mapped,
        scanned_associatively,
        branches,
    ],
)
@torch._dynamo.config.patch(capture_scalar_outputs=True)  # Inductor's scan needs it
def test_loops_over_weights(loop):
    model, x = Looping(loop).eval(), torch.rand(4, 8)
    with torch.no_grad():
        expected = model(x)
        fast = torch.compile(model, backend="eqsat_mcts", options=OPTIONS)
        torch.testing.assert_close(fast(x), expected, rtol=1e-4, atol=1e-5)
        assert any(report.frozen for report in reports.last_reports())


def refuse(monkeypatch, condition):
    """Have compilation fail where ``condition`` holds for its settings."""
    compile_fx = compiling.compile_fx

    def refusing(module, inputs, *, config_patches, **keywords):
        compiled = compile_fx(module, inputs, config_patches=config_patches, **keywords)
        if condition(config_patches):
            raise ValueError("no kernel\nin two lines")
        return compiled

    monkeypatch.setattr(compiling, "compile_fx", refusing)


def model_and_input():
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).eval(), torch.rand(4, 8)


def run(model, x, **options):
    with torch.no_grad():
        return torch.compile(model, backend="eqsat_mcts", options={**OPTIONS, "eqsat.strategy": "none", **options})(x)


def test_what_does_not_compile_frozen_is_compiled_unfrozen(monkeypatch, caplog):
    refuse(monkeypatch, lambda patches: patches["freezing"])
    model, x = model_and_input()
    with caplog.at_level(logging.WARNING, "torch_eqsat"):
        torch.testing.assert_close(run(model, x, **{"eqsat.strict": False}), model(x))
    (record,) = [r for r in caplog.records if r.name.startswith("torch_eqsat")]
    assert record.getMessage() == "graph left as it is: frozen it does not compile: ValueError: no kernel"
    assert counters[COUNTERS]["faults"] == 1
    assert not any(report.frozen for report in reports.last_reports())


def test_an_unfrozen_model_follows_its_weights(monkeypatch):
    refuse(monkeypatch, lambda patches: patches["freezing"])
    model, x = model_and_input()
    with torch.no_grad():
        fast = torch.compile(model, backend="eqsat_mcts", options={**OPTIONS, "eqsat.strict": False})
        fast(x)
        model[0].weight.mul_(2)
        torch.testing.assert_close(fast(x), model(x))
        model[0].weight = nn.Parameter(torch.rand(8, 8))
        torch.testing.assert_close(fast(x), model(x))


def test_strict_raises_what_does_not_compile_frozen(monkeypatch):
    refuse(monkeypatch, lambda patches: patches["freezing"])
    with pytest.raises(Exception, match="no kernel"):
        run(*model_and_input())


def test_what_never_compiles_raises_the_first_error(monkeypatch):
    refuse(monkeypatch, lambda patches: True)
    with pytest.raises(Exception, match="no kernel"):
        run(*model_and_input(), **{"eqsat.strict": False})
    assert counters[COUNTERS]["faults"] == 0


class Pair(nn.Linear):
    def forward(self, x):
        return (super().forward(x),)


def test_what_autograd_returns_lets_its_module_go():
    module = torch.fx.symbolic_trace(Pair(4, 3))
    compiled = aot_module_simplified(module, [torch.ones(2, 4)], lambda graph, inputs: graph)
    assert compiled.named_parameters() is not None
    let_go(compiled)
    assert not hasattr(compiled, "named_parameters") and not hasattr(compiled, "zero_grad")


@pytest.mark.parametrize("globally", [False, True])
def test_without_a_compiler_nothing_is_frozen_that_could_not_be_watched(globally, monkeypatch, caplog):
    monkeypatch.setattr(watching, "_why_blind", lambda: "no compiler")
    model, x = model_and_input()
    with torch.no_grad(), caplog.at_level(logging.WARNING, "torch_eqsat"), config.patch(freezing=globally):
        options = {"eqsat.strategy": "none", "eqsat.strict": True}
        fast = torch.compile(model, backend="eqsat_mcts_eager", options={**options, "freezing": True})
        torch.testing.assert_close(fast(x), model(x))
        model[0].weight.mul_(2)
        same = torch.allclose(fast(x), model(x))
    assert same or globally  # Inductor's own freezing goes on with the old values
    expected = "changes are not seen" if globally else "compiled without freezing"
    assert caplog.records and all(expected in record.getMessage() for record in caplog.records)


def test_sparse_weights_that_are_replaced():
    """Of a weight without memory and without a counter nothing but its identity tells."""

    class Sparse(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.eye(4).to_sparse())
            self.register_buffer("shift", torch.rand(4))

        def forward(self, x):
            return x + self.shift, torch.sparse.mm(self.weight, x)

    with torch.inference_mode():
        model, x = Sparse().eval(), torch.rand(4, 4)
        fast = torch.compile(model, backend="eqsat_mcts_eager", options={"freezing": True})
        torch.testing.assert_close(fast(x), model(x))
        model.weight = (2 * torch.eye(4)).to_sparse()
        torch.testing.assert_close(fast(x), model(x))


def test_a_buffer_that_is_an_input_which_is_written():
    class Shifting(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.register_buffer("shift", torch.rand(4, 8))

        def forward(self, x):
            x.add_(1)
            return self.first(x) + self.shift

    model = Shifting().eval()
    with torch.no_grad():
        fast, other = torch.compile(model, backend="eqsat_mcts_eager", options={"freezing": True}), copy.deepcopy(model)
        torch.testing.assert_close(fast(torch.ones(4, 8)), other(torch.ones(4, 8)))
        torch.testing.assert_close(fast(model.shift), other(other.shift))
        torch.testing.assert_close(fast(torch.ones(4, 8)), other(torch.ones(4, 8)))
