"""The judge of rewritten graphs."""

import pytest
import torch

from torch_eqsat.verification.judge import OriginalFaultError, compare, disagreement

X = torch.linspace(-2.0, 2.0, 32).reshape(4, 8)
W = torch.linspace(-1.0, 1.0, 64).reshape(8, 8).sin()


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


def cached(factor):
    """A step that writes to a cache, which alone has what is multiplied."""

    def step(x, cache):
        cache[:, 1:2] = x[:, None] * factor
        return x + 1.0

    return step


def moved(factor):
    def statistics(x, mean):
        mean.mul_(0.9).add_(x.mean(0), alpha=factor)
        return x - 1.0

    return statistics


def counted(step):
    def count(x, calls):
        calls.add_(step)
        return x * 2.0

    return count


WRITERS = {
    "a cache": (cached, 2.0, 2.001, torch.zeros(4, 3, 8)),
    "running statistics": (moved, 0.1, 0.11, torch.zeros(8)),
    "a count": (counted, 1, 2, torch.tensor(0)),
}


@pytest.mark.parametrize(("made", "right", "wrong", "state"), WRITERS.values(), ids=WRITERS)
def test_what_is_written_into_inputs_is_compared(judged, made, right, wrong, state):
    assert judged(made(right), made(right), X, state) == ""
    assert "after the call: " in judged(made(right), made(wrong), X, state)
    assert not state.any()


def test_another_input_that_is_written_into(judged):
    first, second = (lambda x, a, b: a.copy_(x) + b), (lambda x, a, b: b.copy_(x) * 0.0 + x + b)
    assert "writes into" in judged(first, second, X, torch.zeros_like(X), torch.zeros_like(X))


def test_a_cancellation_is_no_noise_of_the_original(trace):
    """Inputs that are off by a rounding error make 10^7 times its error of a difference that the original takes
    exactly; the rewriting may not use that."""
    big = torch.tensor([3.0e7, 1.0, -3.0e7, 0.125])

    def original(x):
        return ((x[0] + x[2]) + (x[1] + x[3])).reshape(1)

    def rewritten(x):
        return (((x[0] + x[1]) + x[2]) + x[3]).reshape(1)

    first, second = trace(original, big), trace(rewritten, big)
    assert float(original(big)) == 1.125 != float(rewritten(big))
    assert "rounding error" in disagreement(first, second, [big])


def test_zero_but_for_rounding(judged):
    """The gradient of a bias before a softmax is zero in exact arithmetic: what is left is dust in both."""

    def original(x):
        p = torch.softmax(x, -1)
        return (p - p * p.sum(-1, keepdim=True)).sum(-1)

    def rewritten(x):
        p = torch.softmax(x, -1)
        return p.sum(-1) - (p * p.sum(-1, keepdim=True)).sum(-1)

    assert judged(original, rewritten, torch.randn(6, 50)) == ""


@pytest.mark.parametrize(
    ("exact", "dust", "reason"),
    [(2.6e-20, 3e-24, ""), (2.6e-20, 3e-27, "rounding error"), (2.6e-16, 3e-24, "rounding error")],
    ids=["no digit is right", "other roundings change less", "most digits are right"],
)
def test_a_lucky_zero(exact, dust, reason):
    """The gradient of a key's bias, where scores are so small that the softmax is exact: the original is off by less
    than its rounding errors would be elsewhere."""
    exact = torch.full([16], exact, dtype=torch.float64)
    rounded, rewritten = ((exact + off).float() for off in (2.3e-18, 1.8e-16))
    found = compare([exact, exact, rounded, rewritten], None, noise=1e-17, dust=dust)
    assert found[: len("rounding error")] == reason


def test_zero_but_for_rounding_at_any_size(judged):
    """Large inputs make large rounding errors: 1e-8 is none of a gradient of a key's bias, whose factors are 1e6."""

    def shifted(x, w):
        y = x @ w
        return (y - y.mean(1, keepdim=True)).sum(1) * y.square().sum()

    def summed(x, w):
        y = x @ w
        return (y.sum(1) - y.mean(1) * y.shape[1]) * y.square().sum()

    assert judged(shifted, summed, 0.1 * torch.randn(6, 50), torch.randn(50, 40)) == ""


def test_defaults_of_factories_are_doubles_too(judged):
    """The addend of baddbmm with beta=0 is an empty tensor of the default dtype."""

    def added(x, w):
        return torch.addmm(torch.empty(1, 8), x, w, beta=0, alpha=0.3)

    assert judged(added, lambda x, w: (x @ w) * 0.3, X, W) == ""


def test_complex_numbers_are_numbers(judged):
    def spectrum(x):
        return torch.fft.fft(x.to(torch.complex64))

    x = torch.randn(4, 16)
    assert judged(lambda x: spectrum(x) * 3.0, lambda x: spectrum(x * 3.0), x) == ""
    assert "in float64 off" in judged(lambda x: spectrum(x) * 3.0, lambda x: spectrum(x * 3.01), x)


def test_what_raises_before_is_no_fault_of_the_rewriting(judged):
    with pytest.raises(OriginalFaultError, match="out of bounds"):
        judged(lambda x, i: x[i] * 2.0, lambda x, i: x[i] * 2.0, X, torch.tensor([7]))


def test_a_rewriting_that_raises_is_refused(judged):
    first = judged(lambda x, i: x[i] * 2.0, lambda x, i: (x[i + 2]) * 2.0, X, torch.tensor([3]))
    assert first.startswith("the rewritten graph raises IndexError")


@torch.library.custom_op("eqsat_test::counted", mutates_args=())
def counted(x: torch.Tensor) -> torch.Tensor:
    CALLS.append(x.dtype)
    if x.dtype != torch.float32:
        raise RuntimeError("float32 alone")
    return x + 1.0


@counted.register_fake
def _(x):
    return torch.empty_like(x)


CALLS: list[torch.dtype] = []


def test_operators_of_others_are_not_run(judged):
    """They may count, log or send; and need have no kernel for double precision."""
    CALLS.clear()
    x = torch.randn(4, 8)
    once = torch.ops.eqsat_test.counted
    assert judged(lambda x: once(x * 2.0) * 2.0, lambda x: (y := once(x + x)) + y, x) == ""
    assert not CALLS or len(CALLS) == 2  # tracing may run them


def test_what_operators_of_others_are_given_is_compared(judged):
    x = torch.randn(4, 8)
    once = torch.ops.eqsat_test.counted
    assert "operand 0 of counted" in judged(lambda x: once(x * 2.0), lambda x: once(x * 2.1), x)
