"""The judge of rewritten graphs."""

import pytest
import torch

from torch_eqsat.graph.judge import disagreement, sample_inputs

X = torch.linspace(-2.0, 2.0, 32).reshape(4, 8)
W = torch.linspace(-1.0, 1.0, 64).reshape(8, 8).sin()


@pytest.fixture
def judged(trace):
    def judged_(original, rewritten, *inputs):
        return disagreement(trace(original, *inputs), trace(rewritten, *inputs), inputs)

    return judged_


def test_equal_graphs(judged):
    assert judged(lambda x, w: (torch.relu(x @ w), x), lambda x, w: (torch.relu(x @ w), x), X, W) == ""


def test_another_order_of_sums(judged):
    assert judged(lambda x, w: (x @ w) @ w, lambda x, w: x @ (w @ w), X, W) == ""
    assert judged(lambda x: (x * 3.0) * (1 / 3.0), lambda x: x * 1.0, X) == ""


def test_half_precision(judged):
    x, w = X.bfloat16(), W.bfloat16()
    assert judged(lambda x, w: (x @ w) @ w, lambda x, w: x @ (w @ w), x, w) == ""


@pytest.mark.parametrize("off", [1e-5, 1e-2, 1.0])
def test_wrong_constant(judged, off):
    assert "off by" in judged(lambda x: x + 1.0, lambda x: x + (1.0 + off), X)


def test_worse_rounding(judged):
    assert "rounding error" in judged(lambda x: x + 1.0, lambda x: (x.half() + 1.0).float(), X * 0.9)


def test_cancellation_is_worse_rounding(judged):
    assert "rounding error" in judged(lambda x: x + 1.0, lambda x: ((x + 1e6) - 1e6) + 1.0, X * 0.9)


def test_wrong_integers_and_booleans(judged):
    assert "integer" in judged(lambda x: (x > 0).long(), lambda x: (x > 1).long(), X)
    assert judged(lambda x: x > 0, lambda x: x > 0, X) == ""
    assert "integer" in judged(lambda x: x > 0, lambda x: x < 0, X)


def test_shape_and_dtype(judged):
    assert "becomes" in judged(lambda x: x + 1, lambda x: (x + 1).reshape(8, 4), X)
    assert judged(lambda x: x + 1, lambda x: (x + 1).double(), X)


def test_new_nan(judged):
    assert "NaN" in judged(lambda x: x * 0, lambda x: x / x - 1, torch.zeros(3) * X[0, :3])
    assert "NaN" in judged(lambda x: x, lambda x: x.sqrt() ** 2, X)


def test_equal_nans_and_infinities(judged):
    values = torch.tensor([1.0, float("nan"), float("inf"), -float("inf")])
    assert judged(lambda x: x + 1, lambda x: 1 + x, values) == ""


def test_nan_in_place_of_infinity(judged):
    values = torch.tensor([1.0, float("inf")])
    assert judged(lambda x: x + 1.0, lambda x: x + 1.0 + (x - x), values)


def test_infinity_of_the_other_sign(judged):
    values = torch.tensor([1.0, float("inf")])
    assert judged(lambda x: x.clamp(min=0), lambda x: torch.where(x.isinf(), -x, x), values)


def test_overflow_in_the_graphs_own_dtype(judged):
    assert judged(lambda x: x * 1.0, lambda x: (x * 1e30) * 1e30 * 1e-30 * 1e-30, X + 3.0)


def test_randomness_is_drawn_alike(judged):
    assert judged(lambda x: x + torch.rand_like(x), lambda x: torch.rand_like(x) + x, X) == ""


def test_inputs_are_not_changed(trace):
    def function(x, buffer):
        buffer.add_(1)
        return x + buffer

    x, buffer = torch.ones(3), torch.zeros(3)
    module = trace(function, x, buffer)
    assert disagreement(module, trace(function, x, buffer), [x, buffer]) == ""
    assert torch.equal(buffer, torch.zeros(3))


def test_sample_inputs(trace):
    graph = trace(lambda x, i: x[i], torch.rand(4, 2), torch.tensor([0, 1])).graph
    known = [torch.ones(4, 2), torch.tensor([1, 1])]
    assert all(a is b for a, b in zip(sample_inputs(graph, known), known, strict=True))
    made = sample_inputs(graph, [])
    assert [tuple(v.shape) for v in made] == [(4, 2), (2,)]
    assert [v.dtype for v in made] == [torch.float32, torch.int64]
    assert torch.equal(made[0], sample_inputs(graph, [])[0])
    other = sample_inputs(graph, [torch.ones(5, 2), known[1]])
    assert tuple(other[0].shape) == (4, 2) and other[1] is known[1]


def test_rounding_is_measured_against_what_rounded_inputs_make(trace):
    """The original's own error may be small by luck: here it is 0, since the sum is exact in any order but one."""
    big = torch.tensor([3.0e7, 1.0, -3.0e7, 0.125])

    def original(x):
        return ((x[0] + x[2]) + (x[1] + x[3])).reshape(1)

    def rewritten(x):
        return (((x[0] + x[1]) + x[2]) + x[3]).reshape(1)

    first, second = trace(original, big), trace(rewritten, big)
    assert float(original(big)) == 1.125 != float(rewritten(big))
    assert disagreement(first, second, [big]) == ""
