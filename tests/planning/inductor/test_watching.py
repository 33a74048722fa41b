"""Weights that are compared before each call."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch._functorch.aot_autograd import aot_module_simplified

from torch_eqsat.planning.inductor.watching import ADDRESSES, VALUES, let_go, watched
from torch_eqsat.verification.guard import Reference


@pytest.fixture
def module():
    return torch.fx.symbolic_trace(nn.Linear(4, 3))


def run(module, what, calls):
    """A call of ``module`` that is counted where it is a compiled one; what it returns is the answer to nothing."""
    compiled = watched(lambda x: calls.append(1) or (), Reference(module), dict(module.named_parameters()), what)
    return lambda: compiled(torch.ones(2, 4))


@pytest.mark.parametrize("what", [ADDRESSES, VALUES])
def test_a_call_after_a_change_is_run_as_captured(module, what):
    calls: list[int] = []
    call = run(module, what, calls)
    assert call() == () and calls == [1]
    version = module.weight._version
    module.weight.data = torch.ones(3, 4)
    torch.testing.assert_close(call(), module(torch.ones(2, 4)))
    assert calls == [1] and module.weight._version == version + 1  # by which guards see it


def test_memory_that_is_given_back_is_not_taken_for_another(module):
    """The old memory of a weight is kept, so that no later one has its address."""
    calls: list[int] = []
    call = run(module, ADDRESSES, calls)
    for _ in range(20):
        module.weight.data = torch.rand(3, 4)
        torch.testing.assert_close(call(), module(torch.ones(2, 4)))
    assert not calls


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64, torch.int8, torch.bool])
def test_values_of_each_dtype(dtype):
    module = torch.fx.symbolic_trace(nn.Identity())
    module.register_buffer("weight", torch.ones(3, 4).to(dtype))
    calls: list[int] = []
    compiled = watched(lambda x: calls.append(1), Reference(module), {"weight": module.weight}, VALUES)
    compiled(0)
    module.weight.data[1, 2] = 0
    assert compiled(0) == 0 and calls == [1]


def test_weights_are_not_kept():
    weight = nn.Parameter(torch.ones(3))
    module = torch.fx.symbolic_trace(nn.Identity())
    module.register_parameter("weight", weight)
    compiled = watched(lambda x: "compiled", Reference(module), {"weight": weight}, ADDRESSES)
    seen = weakref.ref(weight)
    del weight, module
    gc.collect()
    assert seen() is None
    assert compiled(0) == "compiled"  # which no guard would let happen


class Pair(nn.Linear):
    def forward(self, x):
        return (super().forward(x),)


def test_what_autograd_returns_lets_its_module_go():
    module = torch.fx.symbolic_trace(Pair(4, 3))
    compiled = aot_module_simplified(module, [torch.ones(2, 4)], lambda graph, inputs: graph)
    assert compiled.named_parameters() is not None
    let_go(compiled)
    assert not hasattr(compiled, "named_parameters") and not hasattr(compiled, "zero_grad")
