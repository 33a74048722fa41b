"""Half precision: constants and what is computed with them is rounded once."""

import pytest
import torch

from tests.graph.rebuilding.programs import finish, start, targets
from torch_eqsat.graph.capture import capture

HALVES = [torch.bfloat16, torch.float16]
each_half = pytest.mark.parametrize("dtype", HALVES, ids=["bfloat16", "float16"])


def captured_with_weights(trace, function, x, *weights):
    """A traced function whose operands after the first one are weights, and its capture."""
    module = trace(function, x, *weights)
    return module, capture(module.graph, module.graph.find_nodes(op="placeholder")[1:])


@each_half
def test_a_chain_of_constants_is_rounded_once(trace, dtype):
    x, w, u = (torch.randn(*shape).to(dtype) for shape in ((4, 16), (16, 16), (16, 16)))
    s = torch.rand(16) + 0.5
    module, captured = captured_with_weights(trace, lambda x, w, u, s: ((x @ w) @ u) * s.to(x.dtype), x, w, u, s)
    leaves = {node.name: term for term, node in captured.leaves.items()}
    program, t, (x_, w_, u_, s_) = start(captured, *(leaves[n.name] for n in module.graph.find_nodes(op="placeholder")))
    name = str(dtype).removeprefix("torch.")
    weight = t.mul(t.matmul(w_, u_), t.apply("convert", (s_,), dtype=name))
    finish(module, captured, program, t.matmul(x_, weight))
    once = ((w.float() @ u.float()) * s).to(dtype)
    assert torch.equal(module(x, w, u, s), x @ once)


@each_half
def test_a_sum_with_a_constant_is_rounded_once(trace, dtype):
    """Whatever a law moved into half precision is as precise as it was, where no kernel takes it in."""
    x, s, d = torch.randn(8, 16).to(dtype), torch.rand(16) + 0.5, torch.randn(16)
    module, captured = captured_with_weights(trace, lambda x, s, d: (x * s + d).to(x.dtype), x, s, d)
    expected = module(x, s, d)
    leaves = {node.name: term for term, node in captured.leaves.items()}
    program, t, (x_, s_, d_) = start(captured, *(leaves[n.name] for n in module.graph.find_nodes(op="placeholder")))
    s_, d_ = (t.apply("convert", (c,), dtype=str(dtype).removeprefix("torch.")) for c in (s_, d_))
    finish(module, captured, program, t.add(t.mul(x_, s_), d_))
    assert torch.equal(module(x, s, d), expected)


def test_what_is_single_stays_as_it_is(trace):
    x, w = torch.randn(4, 8), torch.randn(8)
    module, captured = captured_with_weights(trace, lambda x, w: x + w, x, w)
    program, t, (x_, w_) = start(captured, *captured.leaves)
    finish(module, captured, program, t.mul(x_, w_))
    assert targets(module) == ["aten.mul.Tensor"]


@each_half
def test_a_number_made_of_numbers_is_no_tensor(trace, dtype):
    """The scale of a capped softmax is a product of two numbers, and was converted like a tensor."""
    x = torch.randn(8, 16).to(dtype)
    module, captured = captured_with_weights(trace, lambda x: x * 0.05, x)
    program, t, (x_,) = start(captured, *captured.leaves)
    name = str(dtype).removeprefix("torch.")
    number = t.mul(t.scalar(0.25, name), t.scalar(0.2, name))
    finish(module, captured, program, t.mul(x_, number))
    torch.testing.assert_close(module(x), x * 0.05)
