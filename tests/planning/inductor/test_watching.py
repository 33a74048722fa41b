"""The check before each call that no weight changed."""

import gc
import weakref

import pytest
import torch
from torch import nn

from torch_eqsat.planning.inductor.versions import note_constant
from torch_eqsat.planning.inductor.watching import Watch


@pytest.fixture
def weights():
    weights = [nn.Parameter(torch.rand(3, 4)) for _ in range(3)]
    for weight in weights:
        note_constant(weight)
    return weights


CHANGES = {
    "in place": lambda weight: weight.add_(1),
    "other memory": lambda weight: setattr(weight, "data", torch.rand(3, 4)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("index", range(3))
def test_a_change_of_any_weight_is_seen(weights, change, index):
    watch = Watch(weights)
    assert watch.unchanged()
    with torch.no_grad():
        CHANGES[change](weights[index])
    assert not watch.unchanged()
    assert Watch(weights).unchanged()


@pytest.mark.parametrize("form", [lambda memory: memory.T, lambda memory: memory[:2]])
def test_another_view_of_the_same_memory_is_seen_if_no_guard_looks_at_it(weights, form):
    watch, other = Watch(weights, formless=weights[1:2]), Watch(weights)
    weights[1].data = form(weights[1].data)
    assert not watch.unchanged() and other.unchanged()


def test_values_are_compared_if_asked_for(weights):
    for weight in weights:
        note_constant(weight, values=True)
    watch, other = Watch(weights, values=True), Watch(weights)
    weights[2].data[0, 0] = 2.0
    assert not watch.unchanged() and other.unchanged()


@pytest.mark.parametrize("index", range(3))
def test_writes_into_all_of_a_weight_are_seen(weights, index):
    watch = Watch(weights)
    weights[index].data.mul_(1.01)
    assert not watch.unchanged()


def test_weights_without_versions_and_without_memory():
    with torch.inference_mode():
        weights = [torch.rand(3), torch.rand(3).to_sparse()]
        for weight in weights:
            note_constant(weight)
        watch = Watch(weights)
        assert watch.unchanged()
        weights[0].data = torch.rand(3)
    assert not watch.unchanged()


def test_no_guard_expects_a_change(weights):
    """One that was made after a change held for all that followed."""
    watch = Watch(weights)
    assert watch.state() == watch.state()
    weights[0].data = torch.rand(3, 4)
    assert watch.state() != watch.state()


def test_weights_are_not_kept(weights):
    watch, gone = Watch(weights), weakref.ref(weights.pop())
    gc.collect()
    assert gone() is None and not watch.unchanged()


def test_a_mode_of_the_user_is_not_asked(weights):
    class Refusing(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            raise AssertionError(function)

    watch = Watch(weights)
    with Refusing():
        assert watch.unchanged()
