"""The first calls of a compiled graph are compared with eager."""

import logging

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.nn import functional

from torch_eqsat.backend import COUNTERS
from torch_eqsat.laws.law import law
from torch_eqsat.report import last_reports
from torch_eqsat.verification import guard
from torch_eqsat.verification.guard import InDouble, Reference, difference

pytestmark = pytest.mark.usefixtures("fresh")
OPTIONS = {
    "eqsat.strict": True,
    "eqsat.deterministic": True,
    "eqsat.seconds": 0.5,
    "eqsat.min_saving": 0,
    "eqsat.judge": False,
    "eqsat.guard": "first_calls",
    "eqsat.guard_calls": 2,
}
# Torch's caches may hold a graph of another run of these tests.
NO_CACHES = {"force_disable_caches": True}


def relu_is_nothing(t, y, x):
    """relu(x) = x"""
    return x


WRONG = law("y := relu(x)", example="relu([2, 3])")(relu_is_nothing)


def compiled(model, backend="eqsat_mcts_eager", **options):
    return torch.compile(model, backend=backend, options={**OPTIONS, **options})


def wrong(model, **options):
    return compiled(model, **{"eqsat.laws": [WRONG], **options})


def layer(x, w):
    return torch.relu(x @ w) @ w


@pytest.fixture
def stock(monkeypatch):
    """Stock Inductor's code, here eager: the calls it got."""
    calls = []

    def compile_(module, _):
        return lambda *inputs: calls.append(len(inputs)) or module(*inputs)

    monkeypatch.setattr(guard, "compile_alone", compile_)
    return calls


def lines(caplog):
    return [r.getMessage() for r in caplog.records if r.name.startswith("torch_eqsat") and r.levelno >= logging.WARNING]


def test_a_wrong_law_is_found(stock, caplog):
    x, w = torch.randn(32, 64), torch.randn(64, 64)
    with torch.no_grad():
        function = wrong(layer)
        torch.testing.assert_close(function(x, w), layer(x, w))
        torch.testing.assert_close(function(x, w), layer(x, w))
    (line,) = lines(caplog)
    assert "the compiled graph is wrong: output 0 is off by" in line
    assert "regions x1 of" in line and "by laws that made no terms" in line and "compiled by Inductor alone" in line
    assert stock == [2, 2] and counters[COUNTERS]["guard_mismatches"] == 1


def test_without_the_guard_it_is_not(stock):
    x, w = torch.randn(32, 64), torch.randn(64, 64)
    with torch.no_grad():
        assert not torch.allclose(wrong(layer, **{"eqsat.guard": "never"})(x, w), layer(x, w))


def test_only_the_first_calls_are_compared(stock):
    x, w = torch.rand(32, 64), torch.rand(64, 64)
    with torch.no_grad():
        function = wrong(layer)
        function(x, w)
        function(x, w)
        assert not torch.allclose(function(-x, w), layer(-x, w))


def test_inductor_may_be_wrong_as_well(monkeypatch, caplog):
    monkeypatch.setattr(guard, "compile_alone", lambda module, _: lambda *inputs: [layer(*inputs) + 1])
    x, w = torch.randn(32, 64), torch.randn(64, 64)
    with torch.no_grad():
        torch.testing.assert_close(wrong(layer)(x, w), layer(x, w))
    first, second = lines(caplog)
    assert "the compiled graph is wrong" in first
    assert "Inductor's own code is wrong" in second and "runs eagerly" in second


@pytest.mark.slow
def test_training_compares_what_the_forward_returns(stock):
    x, w = torch.randn(32, 64), torch.randn(64, 64, requires_grad=True)
    y = wrong(layer)(x, w)
    torch.testing.assert_close(y, layer(x, w))
    y.sum().backward()
    (expected,) = torch.autograd.grad(layer(x, w).sum(), w)
    torch.testing.assert_close(w.grad, expected)


def test_frozen_weights(stock):
    model, x = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)).eval(), torch.randn(8, 64)
    with torch.no_grad():
        torch.testing.assert_close(wrong(model, freezing=True)(x), model(x))
    assert stock


def test_inputs_that_are_written_to_are_put_back(stock):
    def function(buffer, x, w):
        buffer.add_(torch.relu(x - w))
        return buffer * 2

    x, w, buffer, eager = torch.randn(8, 4), torch.randn(8, 4), torch.zeros(8, 4), torch.zeros(8, 4)
    with torch.no_grad():
        torch.testing.assert_close(wrong(function)(buffer, x, w), function(eager, x, w))
    torch.testing.assert_close(buffer, eager)
    assert stock


def test_running_statistics_move_once(caplog):
    model, x = nn.BatchNorm1d(4), torch.randn(8, 4)
    compiled(model)(x)
    assert model.num_batches_tracked == 1
    torch.testing.assert_close(model.running_mean, 0.1 * x.mean(0))
    assert not lines(caplog)


def test_random_graphs_are_not_compared_and_draw_once(caplog):
    function = compiled(lambda x: functional.dropout(x, 0.5, training=True), **{"eqsat.strategy": "none"})
    torch.manual_seed(1)
    actual = function(torch.ones(64))
    torch.manual_seed(1)
    torch.testing.assert_close(actual, functional.dropout(torch.ones(64), 0.5, training=True))
    (line,) = lines(caplog)
    assert line == "guard: a graph is not compared with eager: it draws random numbers"


RUNS = []


@torch.library.custom_op("eqsat_guard_tests::counted", mutates_args=())
def counted(x: torch.Tensor) -> torch.Tensor:
    RUNS.append(1)
    return x * 2


@counted.register_fake
def _(x):
    return torch.empty_like(x)


def test_effects_do_not_happen_twice(caplog):
    RUNS.clear()
    with torch.no_grad():
        compiled(lambda x: counted(x) + 1, **{"eqsat.strategy": "none"})(torch.ones(4))
    assert len(RUNS) == 1
    (line,) = lines(caplog)
    assert "eqsat_guard_tests::counted may have side effects" in line


def test_inputs_that_overlap_and_are_written_to(caplog):
    def function(a, b):
        a.add_(1)
        return a + b

    storage = torch.zeros(6)
    with torch.no_grad():
        actual = compiled(function)(storage[:4], storage[2:])
    assert actual.tolist() == [2.0, 2.0, 1.0, 1.0] or lines(caplog)


def test_half_precision_and_dtypes_of_its_own(caplog):
    def function(x, w):
        y = (x @ w).float()
        return y.half(), torch.zeros(3, dtype=torch.float32) + y.sum(), y > 0, y.argmax(-1)

    x, w = torch.randn(16, 64).half(), torch.randn(64, 8).half()
    with torch.no_grad():
        compiled(function)(x, w)
    assert not lines(caplog)


def test_symbolic_sizes(stock):
    function = wrong(layer)
    w = torch.randn(64, 64)
    with torch.no_grad():
        for rows in (3, 5, 7):
            x = torch.randn(rows, 64)
            torch._dynamo.mark_dynamic(x, 0)
            torch.testing.assert_close(function(x, w), layer(x, w))


def test_everything_is_computed_in_double():
    def function(x, mask):
        table = torch.zeros(3, dtype=torch.float32)
        table[:2] = x[:2].float()
        return table.to(torch.float32) / 3, torch.tensor(0.1), x.to(torch.bfloat16), mask.float()

    with InDouble():
        results = function(torch.ones(3, dtype=torch.float64), torch.ones(2, dtype=torch.bool))
    assert {y.dtype for y in results} == {torch.float64}
    assert results[0][0] == torch.tensor(1.0, dtype=torch.float64) / 3


def test_a_reference_keeps_no_inputs_alive():
    seen = []

    def backend(module, inputs):
        seen.append(Reference(module))
        return module.forward

    torch.compile(layer, backend=backend)(torch.randn(2, 3), torch.randn(3, 3))
    assert all(not node.meta for node in seen[0].module.graph.nodes)


ONES = torch.ones(4)


@pytest.mark.parametrize(
    ("actual", "exact", "eager", "problem"),
    [
        (ONES, ONES.double(), ONES, ""),
        (ONES + 1e-5, ONES.double(), ONES, ""),
        (ONES + 1e-2, ONES.double(), ONES, "is off by"),
        (ONES + 1e-2, ONES.double(), ONES - 5e-3, ""),
        (ONES.bfloat16() + 1e-2, ONES.double(), ONES.bfloat16(), ""),
        (ONES + 1e-2, None, ONES, "is off by"),
        (ONES / 0, ONES.double(), ONES, "infinities"),
        (ONES, ONES.double() / 0, ONES / 0, "infinities"),
        (ONES, ONES.double(), ONES / 0, ""),  # eager overflows, which a rewrite need not
        (ONES[:2], ONES.double(), ONES, "(2,), not torch.float32 (4,)"),
        (ONES.half(), ONES.double(), ONES, "torch.float16"),
        (torch.arange(3), None, torch.arange(3), ""),
        (torch.arange(3), torch.arange(3) + 1, torch.zeros(3, dtype=torch.int64), "differs in 2 of 3"),
        (torch.ones(2) * 1j, None, torch.ones(2) * 1j, ""),
        (torch.ones(2) * 2j, None, torch.ones(2) * 1j, "is off by"),
        (3, 3, 3, ""),
        (None, None, ONES, "NoneType"),
        (torch.empty(0), torch.empty(0).double(), torch.empty(0), ""),
        (torch.arange(4), torch.arange(8), torch.arange(4), ""),  # the bits of float32 and of float64
        (torch.arange(4) + 1, torch.arange(8), torch.arange(4), "differs in 4 of 4"),
        (ONES, torch.ones(5).double(), ONES, ""),  # in float64 one more was chosen
        (ONES * 2, torch.ones(5).double(), ONES, "is off by"),
    ],
)
def test_differences(actual, exact, eager, problem):
    found = difference(actual, exact, eager)
    assert problem in found and bool(problem) == bool(found)


class Attention(nn.Module):
    """Scores over a key that was permuted twice, which Inductor's pattern for attention gets wrong for some sizes."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x):
        b, t, _ = x.shape
        q = self.q(x).view(b, t, 4, 16).permute(0, 2, 1, 3)
        k = self.k(x).view(b, t, 4, 16).permute(0, 2, 3, 1)
        v = self.v(x).view(b, t, 4, 16).permute(0, 2, 1, 3)
        w = (torch.matmul(q, k) * 16**-0.5).softmax(dim=-1)
        return torch.matmul(w, v).permute(0, 2, 1, 3).reshape(b, t, 64)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 4, 64), (2, 8, 64), (1, 4, 64)])
def test_what_inductor_gets_wrong_by_itself(shape):
    """Whether or not this Inductor does, the answer is right."""
    model, x = Attention().eval(), torch.randn(shape)
    with torch.no_grad():
        function = compiled(model, "eqsat_mcts", **{"eqsat.strategy": "none"})
        torch.testing.assert_close(function(x), model(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(function(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("grad", [False, True])
def test_stock_inductor_takes_over(grad, caplog):
    x, w = torch.randn(512, 8), torch.randn(8, 8, requires_grad=grad)
    with torch.set_grad_enabled(grad):
        function = torch.compile(layer, backend="eqsat_mcts", options={**OPTIONS, **NO_CACHES, "eqsat.laws": [WRONG]})
        for _ in range(2):
            torch.testing.assert_close(function(x, w), layer(x, w), rtol=1e-4, atol=1e-4)
    assert len(lines(caplog)) == 1, [report.decision for report in last_reports()]
