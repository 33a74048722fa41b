"""torch.compile with the backend, end to end, on models of a few layers."""

import copy
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch_eqsat.rewrites import catalogue

import torch_eqsat
from torch_eqsat import backend
from torch_eqsat import report as reports
from torch_eqsat.backend import COUNTERS
from torch_eqsat.counters import timings
from torch_eqsat.errors import OptionError, WorkerError
from torch_eqsat.ir.builder import Builder, GraphStore, Handle
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.laws.law import law
from torch_eqsat.planning.plan import Plan
from torch_eqsat.planning.source import source_hash
from torch_eqsat.search.parameters import SearchParameters

pytestmark = pytest.mark.usefixtures("fresh")
slow = pytest.mark.slow
OPTIONS = {
    "eqsat.strict": True,
    "eqsat.seconds": 5.0,
    "eqsat.measure_seconds": 10.0,
    "force_disable_caches": True,
}


def compiled(model, dynamic=None, **options):
    return torch.compile(model, backend="eqsat_mcts", dynamic=dynamic, options={**OPTIONS, **options})


def frozen(model):
    return compiled(model, freezing=True)


class Folding(nn.Sequential):
    """Two linear layers that are one."""

    def __init__(self, inside: int = 512, outside: int = 64):
        super().__init__(nn.Linear(outside, inside), nn.Linear(inside, outside))


class Small(nn.Module):
    """A convolution, batch normalisation, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def mlp():
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 4))


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def only_report():
    (report,) = reports.last_reports()
    return report


# Options and faults need no generated code.


def test_unknown_option_names_the_nearest():
    with pytest.raises(Exception, match=r"did you mean 'eqsat\.seconds'"):
        compiled(mlp(), **{"eqsat.secnds": 1})(torch.rand(2, 16))


def test_bad_options_are_refused_before_any_work():
    with pytest.raises(OptionError, match="at least"):
        backend.eqsat_mcts(None, [], options={"eqsat.nodes": 0})


def test_backend_is_registered():
    assert "eqsat_mcts" in torch._dynamo.list_backends(exclude_tags=())


def diagonal_without_product(t, d, a, b):
    """diag(A B) = Σₖ Aᵢₖ Bₖᵢ"""
    return t.view(t.reduce(t.mul(a, t.permute(b, [1, 0])), "sum", [1]), d.shape)


def only_small_ones(t, a, b):
    """A B = A B"""
    return a.no_such_attribute if a.numel > 100 else t.add(t.matmul(a, b), t.scalar(0.0))


@slow
def test_law_of_the_user(caplog):
    mine = law("d := diagonal(m := matmul(a, b))", example="diagonal(matmul([3, 4], [4, 3]))")(diagonal_without_product)
    bad = law("matmul(a, b)", example="matmul([2, 3], [3, 4])")(only_small_ones)
    a, b = torch.randn(256, 256), torch.randn(256, 256)

    def function(a, b):
        return torch.diagonal(a @ b).relu()

    families = {item.family for item in catalogue()}
    with torch.no_grad(), caplog.at_level(logging.WARNING, "torch_eqsat"):
        rewritten = compiled(function, **{"eqsat.laws": [mine, *bad], "eqsat.disable": sorted(families)})
        assert_close(rewritten(a, b), function(a, b))
    assert set(only_report().laws) == {"diagonal_without_product"}
    (line,) = [r.getMessage() for r in caplog.records if r.name == "torch_eqsat.planning.planner"]
    assert "without a law" in line and "only_small_ones" in line and "no_such_attribute" in line


def test_source_hash_is_equal_across_processes():
    code = "from torch_eqsat.planning.source import source_hash; print(source_hash())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONHASHSEED": "7"}
    text = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert text.stdout.strip() == source_hash()


def test_pass_is_known_by_its_options():
    def uuid(frozen=True, parameters=SearchParameters(), **options):
        return backend.EqsatPass(backend.Options(**options), frozen, [], [], parameters=parameters).uuid()

    assert uuid() == uuid()
    others = uuid(frozen=False), uuid(seed=1), uuid(disable=("matmul",)), uuid(parameters=SearchParameters(patience=1))
    assert len({uuid(), *others}) == 5


# Rewriting.


@slow
def test_two_linear_layers_are_folded():
    model, x = Folding().eval(), torch.rand(32, 64)
    with torch.no_grad():
        expected = model(x)
        actual = frozen(model)(x)
    report = only_report()
    assert report.changed and report.frozen and not report.from_plan
    assert any("associative" in law for region in report.regions for law in region.laws)
    assert "matmul_is_associative" in report.laws
    assert report.best_ms < report.base_ms
    assert "matmul_is_associative" in str(report)
    assert counters[COUNTERS]["rewritten"] == 1
    assert_close(actual, expected)


@slow
def test_folding_that_does_not_pay_is_refused(one_thread):
    model, x = Folding(inside=64, outside=768).eval(), torch.rand(32, 768)
    with torch.no_grad():
        # With less time the folded kernel may stay unmeasured, at a price that flatters it.
        actual = compiled(model, freezing=True, **{"eqsat.measure_seconds": 10.0})(x)
        assert_close(actual, model(x))
    # The two products may still go to other kernels, and their biases be one.
    assert not any("associative" in law for region in only_report().regions for law in region.laws)


@slow
def test_convolution_and_batch_norm():
    model, x = Small().eval(), torch.rand(2, 3, 12, 12)
    model.norm.running_mean.uniform_()
    model.norm.running_var.uniform_(0.5, 2.0)
    with torch.no_grad():
        assert_close(frozen(model)(x), model(x))


@slow
def test_disabled_laws_are_not_used():
    model, x = Folding().eval(), torch.rand(32, 64)
    with torch.no_grad():
        compiled(model, freezing=True, **{"eqsat.disable": ["matmul"]})(x)
    assert not any(law.startswith("matmul_associates") for law in only_report().laws)


@slow
def test_explain():
    explanation = torch_eqsat.explain(lambda x: (x @ x.t()) @ x, torch.rand(64, 4), options=OPTIONS)
    assert len(explanation.graphs) == 1
    assert "graph of" in str(explanation)


@slow
def test_frozen_parameter_that_is_replaced():
    model, x = Folding().eval(), torch.rand(32, 64)
    fast = frozen(model)
    with torch.no_grad():
        fast(x)
        model[0].weight = nn.Parameter(torch.rand_like(model[0].weight))
        assert_close(fast(x), model(x))
        model.to(torch.float64)
        assert_close(fast(x.double()), model(x.double()))


@slow
def test_grad_mode_is_switched():
    model, x = Folding().eval(), torch.rand(32, 64)
    fast = frozen(model)
    with torch.no_grad():
        assert_close(fast(x), model(x))
    y = fast(x)
    y.sum().backward()
    gradient = model[0].weight.grad.clone()
    model.zero_grad()
    model(x).sum().backward()
    assert_close(gradient, model[0].weight.grad)
    with torch.no_grad():
        assert_close(fast(x), model(x))


# Training.


def check_training(model, *inputs, **keywords):
    """Losses, gradients and buffers of a few compiled steps against eager ones."""
    eager, fast_model = copy.deepcopy(model), model
    fast = compiled(fast_model, **keywords)
    for _ in range(2):
        for module, call in ((eager, eager), (fast_model, fast)):
            module.zero_grad()
            call(*inputs).square().mean().backward()
        for (name, a), b in zip(eager.named_parameters(), fast_model.parameters(), strict=True):
            torch.testing.assert_close(b.grad, a.grad, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
        for a, b in zip(eager.buffers(), fast_model.buffers(), strict=True):
            torch.testing.assert_close(b, a)
        with torch.no_grad():
            for module in (eager, fast_model):
                for p in module.parameters():
                    p -= 0.1 * p.grad


@slow
def test_training_of_mlp():
    check_training(mlp(), torch.rand(8, 16))


@slow
def test_training_of_folding_layers():
    check_training(Folding(), torch.rand(32, 64), freezing=True)


@slow
def test_training_updates_running_statistics():
    check_training(Small().train(), torch.rand(4, 3, 8, 8))


@slow
def test_checkpointed_layers():
    model, x = mlp(), torch.rand(8, 16, requires_grad=True)

    def loss(x):
        return torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False).square().mean()

    (actual,), (expected,) = torch.autograd.grad(compiled(loss)(x), x), torch.autograd.grad(loss(x), x)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-6)


@slow
def test_dropout_in_training():
    model = nn.Sequential(nn.Linear(16, 512), nn.Dropout(0.5)).train()
    with torch.no_grad():
        model[0].bias.fill_(10.0)
    y = compiled(model)(torch.rand(64, 16))
    dropped = (y == 0).float().mean().item()
    assert 0.45 < dropped < 0.55
    y.sum().backward()
    expected = (y != 0).float().sum(0) * 2
    assert_close(model[0].bias.grad, expected)


@slow
def test_running_statistics_without_gradients():
    model, x = Small().train(), torch.rand(4, 3, 8, 8)
    eager = copy.deepcopy(model)
    fast = compiled(model)
    with torch.no_grad():
        for _ in range(2):
            assert_close(fast(x), eager(x))
    for a, b in zip(eager.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(b, a)


@slow
def test_running_statistics_under_freezing():
    model, x = Small().train(), torch.rand(4, 3, 8, 8)
    eager = copy.deepcopy(model)
    fast = frozen(model)
    with torch.no_grad():
        for _ in range(3):
            assert_close(fast(x), eager(x))
    for a, b in zip(eager.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(b, a)


# Shapes, outputs, inputs.


@slow
def test_dynamic_shapes():
    model = Folding(inside=32, outside=8).eval()
    fast = compiled(model, dynamic=True)
    with torch.no_grad():
        for batch in (3, 5, 7):
            x = torch.rand(batch, 8)
            assert_close(fast(x), model(x))
    assert counters["stats"]["unique_graphs"] == 1


@slow
@pytest.mark.parametrize(
    "verify",
    [
        False,
        True,
    ],
)
def test_rewriting_beside_dynamic_shapes(verify):
    """Sizes of weights are static although the batch is not; the check of the rewrite must not pin the batch."""

    def function(x, a, b, c):
        return x @ ((a @ b) @ c) + 1

    weights = [torch.rand(512, 512), torch.rand(512, 512), torch.rand(512, 1)]
    fast = compiled(function, **{"eqsat.judge": verify, "eqsat.measure_seconds": 10.0})
    with torch.no_grad():
        for batch in (3, 5, 7):
            x = torch.rand(batch, 512)
            torch._dynamo.mark_dynamic(x, 0)
            torch.testing.assert_close(fast(x, *weights), function(x, *weights), rtol=1e-4, atol=1e-1)
    assert only_report().changed
    assert counters["stats"]["unique_graphs"] == 1


@slow
def test_several_and_shared_outputs():
    def function(x, a, b):
        y = (x @ a) @ b
        return y, [y, y + 1], x, {"z": x @ a}

    inputs = torch.rand(64, 32), torch.rand(32, 64), torch.rand(64, 2)
    actual, expected = compiled(function)(*inputs), function(*inputs)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)


def forked(x, a, b):
    return x.sin(), x.sin(), (x @ a) @ b


def three_products(x, a, b, c):
    return x @ a, x @ b, x @ c


@slow
def test_equal_outputs_stay_apart():
    first, second, _ = compiled(forked)(torch.rand(256, 256), torch.rand(256, 256), torch.rand(256, 2))
    assert only_report().changed
    first.zero_()
    assert second.abs().max() > 0


@slow
def test_outputs_keep_their_strides(monkeypatch):
    monkeypatch.setattr("torch_eqsat.planning.pipeline.search_regions", merge_products)
    inputs = torch.rand(4, 64), torch.rand(64, 32), torch.rand(64, 32), torch.rand(64, 32)
    actual, expected = compiled(three_products)(*inputs), three_products(*inputs)
    assert only_report().changed
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)
    assert [y.stride() for y in actual] == [y.stride() for y in expected]


def merge_products(task, *_):
    """A plan for three_products: one product, cut in three."""
    graph = TermGraph()
    t = Builder(GraphStore(graph))
    x, *weights = [
        Handle(graph.add(node, type_, False), type_)
        for node, type_ in zip(task.graph.nodes, task.graph.types, strict=True)
        if node.op == "input"
    ]
    merged = t.matmul(x, t.cat(weights, 1))
    graph.roots = [t.slice(merged, 1, 32 * i, 32 * i + 32).id for i in range(3)]
    origin = [i if node.op == "input" else -1 for i, node in enumerate(graph.nodes)]
    made = Plan(1.0, 0.1, (), graph, tuple(origin))
    return SimpleNamespace(groups=["all"], plan=lambda groups: made)


@slow
def test_views_of_a_rewritten_output():
    def function(x, a, b):
        y = (x @ a) @ b
        return y, y.t(), y[1:]

    y, turned, part = compiled(function)(torch.rand(256, 256), torch.rand(256, 256), torch.rand(256, 2))
    assert only_report().changed
    y.fill_(7.0)
    assert (turned == 7.0).all() and (part == 7.0).all()


@slow
def test_weight_among_the_outputs():
    class Returning(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = Folding()

        def forward(self, x):
            return self.layers(x), self.layers[0].weight, self.layers[1].weight * 2

    model, x = Returning().eval(), torch.rand(32, 64)
    with torch.no_grad():
        actual = frozen(model)(x)
        assert_close(actual, model(x))
    assert actual[1] is model.layers[0].weight


@slow
def test_tied_weights():
    model, x = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)).eval(), torch.rand(8, 64)
    model[1].weight = model[0].weight
    with torch.no_grad():
        assert_close(frozen(model)(x), model(x))


@slow
def test_graph_breaks():
    def function(x, a, b):
        y = (x @ a) @ b
        torch._dynamo.graph_break()
        return y * 2

    inputs = torch.rand(256, 256), torch.rand(256, 256), torch.rand(256, 2)
    torch.testing.assert_close(compiled(function)(*inputs), function(*inputs), rtol=1e-4, atol=1e-2)
    assert len(reports.last_reports()) == 2


@slow
def test_channels_last():
    layers = nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.Conv2d(8, 4, 1)
    model = nn.Sequential(*layers).eval().to(memory_format=torch.channels_last)
    x = torch.rand(2, 8, 9, 9).to(memory_format=torch.channels_last)
    with torch.no_grad():
        actual, expected = frozen(model)(x), model(x)
    assert_close(actual, expected)
    assert actual.stride() == expected.stride()


@slow
def test_autocast():
    model, x = Folding().eval(), torch.rand(32, 64)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        actual, expected = frozen(model)(x), model(x)
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual, expected, rtol=3e-2, atol=3e-2)


@slow
def test_freezing_without_weights():
    """What a forward makes of numbers alone is computed once: a mask of shifted windows took 2.4 ms, 0.6 without."""

    def masked(x):
        mask = x.new_zeros(4, 6)
        mask[:2, 1:] = 3
        return x + mask.masked_fill(mask == 0, -100.0)

    with torch.no_grad():
        torch.testing.assert_close(frozen(masked)(torch.ones(4, 6)), masked(torch.ones(4, 6)))
    assert only_report().frozen and only_report().folded == 1


@slow
def test_association_without_freezing():
    def function(x, a, b):
        return (x @ a) @ b

    inputs = torch.rand(256, 256), torch.rand(256, 256), torch.rand(256, 2)
    torch.testing.assert_close(compiled(function)(*inputs), function(*inputs), rtol=1e-4, atol=1e-2)
    assert only_report().changed and not only_report().frozen


@slow
def test_integer_inputs_and_embedding():
    model = nn.Sequential(nn.Embedding(20, 16), nn.Linear(16, 4)).eval()
    index = torch.randint(0, 20, (3, 7))
    with torch.no_grad():
        assert_close(frozen(model)(index), model(index))


@slow
def test_in_place_changes_of_inputs():
    def function(x, buffer):
        buffer.mul_(0.5).add_(x.sum(0))
        return (x + buffer).relu_()

    x, buffer, buffer_eager = torch.rand(4, 8), torch.ones(8), torch.ones(8)
    fast = compiled(function)
    for _ in range(2):
        assert_close(fast(x, buffer), function(x, buffer_eager))
        assert_close(buffer, buffer_eager)


@slow
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum() + 1,
        lambda x: torch.arange(5) * 2,
        lambda x: x.shape[0] + x.view(-1)[:0],
        lambda x: x[0, 0] + 1,
    ],
    ids=["number", "constant", "empty", "element"],
)
def test_unusual_graphs(function):
    x = torch.rand(3, 4)
    assert_close(compiled(function)(x), function(x))


@slow
def test_graph_of_numbers_alone():
    x = torch.tensor(2.0)
    assert_close(compiled(lambda x: x.sin() * 2)(x), x.sin() * 2)


@slow
def test_module_with_buffers_of_no_axes():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 64)
            self.register_buffer("scale", torch.tensor(0.5))

        def forward(self, x):
            return self.linear(x * self.scale) * self.scale

    model, x = Scaled().eval(), torch.rand(8, 64)
    with torch.no_grad():
        assert_close(frozen(model)(x), model(x))


# Plans.


@slow
def test_plan_is_reused():
    model, x = Folding().eval(), torch.rand(32, 64)
    with torch.no_grad():
        frozen(model)(x)
        first = only_report()
        torch.compiler.reset()
        actual = frozen(model)(x)
        assert_close(actual, model(x))
    second = only_report()
    assert second.from_plan and second.changed
    assert (second.laws, second.base_ms, second.best_ms) == (first.laws, first.base_ms, first.best_ms)
    assert "from a stored plan" in str(second)
    assert counters[COUNTERS]["plans_reused"] == 1


@slow
def test_plans_are_not_kept_without_the_cache(tmp_path):
    with torch.no_grad():
        compiled(Folding().eval(), freezing=True, **{"eqsat.cache": False})(torch.rand(32, 64))
    assert not list(tmp_path.glob("**/plans-*/*.json"))


@slow
def test_plan_that_does_not_fit_leaves_the_result_right(monkeypatch):
    monkeypatch.setattr("torch_eqsat.planning.pipeline.load_plan", lambda key: Plan(1.0, 0.1, (), TermGraph(), ()))
    model, x = Folding().eval(), torch.rand(32, 64)
    with torch.no_grad():
        assert_close(compiled(model, freezing=True, **{"eqsat.strict": False})(x), model(x))


@slow
@pytest.mark.parametrize("freezing", [True, False])
def test_graphs_are_measured_once(freezing, one_thread):
    """Both graphs run beside the user's compilation, and change nothing of it: not even the buffer that is written."""
    a, b, c = (torch.randn(shape) for shape in ((256, 256), (256, 256), (256, 2)))
    model = nn.Sequential(nn.Linear(64, 512), nn.Linear(512, 64)).eval()
    buffer = torch.zeros(256, 2)

    def products(a, b, c, buffer):
        buffer.add_(1)
        return (a @ b) @ c

    def run():
        measured = compiled(model if freezing else products, freezing=freezing, **{"eqsat.measure": True})
        with torch.no_grad():
            return measured(torch.ones(32, 64)) if freezing else measured(a, b, c, buffer)

    expected = model(torch.ones(32, 64)) if freezing else (a @ b) @ c
    torch.testing.assert_close(run(), expected.detach(), rtol=1e-3, atol=1e-3)
    first = only_report()
    assert first.changed and first.race.winner == "rewritten" and counters[COUNTERS]["timed_graphs"] == 2
    torch.compiler.reset()
    torch.testing.assert_close(run(), expected.detach(), rtol=1e-3, atol=1e-3)
    assert only_report().race == first.race and timings() == 0
    assert freezing or buffer.unique().tolist() == [2.0]


# Faults.


def broken(*_):
    raise WorkerError("the search worker died\nin two lines")


@slow
def test_fault_leaves_the_graph(monkeypatch, caplog):
    monkeypatch.setattr(backend, "optimize", broken)
    model, x = mlp(), torch.rand(2, 16)
    with caplog.at_level(logging.WARNING, logger="torch_eqsat"):
        y = compiled(model, **{"eqsat.strict": False})(x)
    assert_close(y, model(x))
    (record,) = [r for r in caplog.records if r.name == "torch_eqsat"]
    assert record.getMessage() == "graph left as it is: WorkerError: the search worker died"
    assert counters[COUNTERS]["faults"] == 1
    assert counters[COUNTERS]["rewritten"] == 0
    assert "WorkerError" in only_report().decision


@slow
def test_strict_raises(monkeypatch):
    monkeypatch.setattr(backend, "optimize", broken)
    with pytest.raises(Exception, match="the search worker died"):
        compiled(mlp())(torch.rand(2, 16))
    assert counters[COUNTERS]["faults"] == 1


@slow
def test_refused_rewrite_leaves_the_graph(monkeypatch, caplog):
    monkeypatch.setattr("torch_eqsat.planning.verdict.disagreement", lambda *_: "output 0: wrong")
    model, x = Folding().eval(), torch.rand(32, 64)
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        assert_close(frozen(model)(x), model(x))
    assert not only_report().changed
    assert "refused (output 0: wrong)" in only_report().decision


@slow
def test_refused_rewrite_stays_refused(monkeypatch):
    model, x = Folding().eval(), torch.rand(32, 64)
    with torch.no_grad(), monkeypatch.context() as patch:
        patch.setattr("torch_eqsat.planning.verdict.disagreement", lambda *_: "output 0: wrong")
        frozen(model)(x)
    torch.compiler.reset()
    with torch.no_grad():
        assert_close(frozen(model)(x), model(x))
    assert only_report().from_plan and not only_report().changed


@slow
def test_marked_inputs_are_no_weights():
    model, x = Folding().eval(), torch.rand(32, 64)
    torch._dynamo.mark_static_address(x)
    with torch.no_grad():
        function = frozen(model)
        function(x)
        x.fill_(0.5)
        assert_close(function(x), model(x))


@slow
def test_returned_constants_are_fresh():
    class Positions(nn.Linear):
        def forward(self, x):
            return super().forward(x), torch.arange(8)

    model, x = Positions(8, 8).eval(), torch.rand(2, 8)
    with torch.no_grad():
        function = frozen(model)
        function(x)[1].add_(1)
        assert function(x)[1].tolist() == list(range(8))


@slow
def test_explain_twice():
    model, x = Folding().eval(), torch.rand(32, 64)
    with torch.no_grad():
        for _ in range(2):
            assert "graph of" in str(torch_eqsat.explain(model, x, options={"freezing": True}))


@slow
def test_reset_forgets():
    with torch.no_grad():
        compiled(mlp())(torch.rand(2, 16))
    assert reports.last_reports() and counters[COUNTERS]["graphs"] == 1
    torch.compiler.reset()
    assert not reports.last_reports() and COUNTERS not in counters
