"""The check before each call that no weight changed."""

import gc
import weakref

import pytest
import torch
from torch import nn

from torch_eqsat.planning.inductor.versions import note_constant
from torch_eqsat.planning.inductor.watching import Place, Watch

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.complex128, torch.int8, torch.bool]
FORMS = {
    "dense": lambda weight: weight,
    "turned": lambda weight: weight.T,
    "a part": lambda weight: weight[1:, 2:4],
    "with gaps": lambda weight: weight[::2, ::3],
    "expanded": lambda weight: weight[:1].expand(7, -1),
    "a row": lambda weight: weight[3],
    "one element": lambda weight: weight[1, 1],
}


class Owner(nn.Module):
    """Of parameters and a buffer."""

    def __init__(self, *weights):
        super().__init__()
        for number, weight in enumerate(weights):
            (self.register_buffer if number == 2 else self.register_parameter)(str(number), weight)


def watch_of(*owners, **options):
    """The watch of all weights of these modules."""
    places = [
        (Place(weakref.ref(owner), table, key), weight)
        for owner in owners
        for table in ("_parameters", "_buffers")
        for key, weight in vars(owner)[table].items()
    ]
    for _, weight in places:
        note_constant(weight, values=options.get("values", False))
    return Watch(places, **options)


@pytest.fixture
def owners():
    return [Owner(*(nn.Parameter(torch.rand(3, 4)) for _ in range(2)), torch.rand(3, 4)) for _ in range(2)]


def weights_of(owners):
    return [weight for owner in owners for weight in (*owner.parameters(), *owner.buffers())]


def replace(owner, key, weight):
    table = owner._buffers if key in owner._buffers else owner._parameters
    table[key] = weight


CHANGES = {
    "in place": lambda owner, key: owner.get_buffer(key).add_(1) if key == "2" else owner.get_parameter(key).add_(1),
    "other memory": lambda owner, key: setattr(getattr(owner, key), "data", torch.rand(3, 4)),
    "another view": lambda owner, key: setattr(getattr(owner, key), "data", getattr(owner, key).data[:2]),
    "other strides": lambda owner, key: setattr(getattr(owner, key), "data", getattr(owner, key).data.view(4, 3).T),
    "another dtype": lambda owner, key: setattr(getattr(owner, key), "data", getattr(owner, key).data.half()),
    "differentiable or not": lambda owner, key: getattr(owner, key).requires_grad_(key == "2"),
    "replaced": lambda owner, key: replace(owner, key, nn.Parameter(torch.rand(3, 4))),
    "a copy": lambda owner, key: replace(owner, key, getattr(owner, key).clone()),
    "no more": lambda owner, key: replace(owner, key, None),
    "removed": lambda owner, key: delattr(owner, key),
    "no tensor": lambda owner, key: replace(owner, key, "weight"),
    "no memory": lambda owner, key: getattr(owner, key).untyped_storage().resize_(0),
    "negative view": lambda owner, key: setattr(getattr(owner, key), "data", torch._neg_view(getattr(owner, key).data)),
    "written unseen": lambda owner, key: getattr(owner, key).data.mul_(1.01),
    "another table": lambda owner, key: vars(owner).update(_parameters={}, _buffers={}),
    "swapped": lambda owner, key: torch.utils.swap_tensors(
        getattr(owner, key), nn.Parameter(torch.rand(3, 4)) if key != "2" else torch.rand(3, 4)
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("key", ["0", "1", "2"])
@pytest.mark.parametrize("index", range(2))
def test_a_change_of_any_weight_is_seen(owners, change, index, key):
    watch = watch_of(*owners)
    assert watch.unchanged()
    with torch.no_grad():
        CHANGES[change](owners[index], key)
    assert not watch.unchanged()
    if change in ("in place", "other memory", "another view", "written unseen", "swapped"):
        assert watch_of(*owners).unchanged()


def test_what_was_is_seen_only_if_nothing_wrote_meanwhile(owners):
    watch, weight = watch_of(*owners), owners[0].get_parameter("0")
    vars(owners[0])["_parameters"] = dict(owners[0]._parameters)  # another table of the same weights
    assert watch.unchanged()
    memory, weight.data = weight.data, torch.rand(3, 4)
    assert not watch.unchanged()
    weight.data = memory
    assert watch.unchanged()


def test_the_values_decide_and_not_the_object_that_has_them(owners):
    watch = watch_of(*owners)
    owners[0]._parameters["0"] = other = nn.Parameter(owners[0].get_parameter("0"))
    assert watch.unchanged()
    with torch.no_grad():
        other.add_(1)
    assert not watch.unchanged()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_the_middle_element_is_compared(form, dtype):
    weight = FORMS[form](torch.randint(0, 2, (5, 6)).to(dtype))
    owner = nn.Module()
    owner.register_buffer("weight", weight)
    watch = watch_of(owner)
    weight.data[tuple(n // 2 for n in weight.shape)].logical_not_()
    assert not watch.unchanged()


def test_values_are_compared_if_asked_for(owners):
    watch, other = watch_of(*owners, values=True), watch_of(*owners)
    owners[1].get_buffer("2").data[0, 0] = 2.0
    assert not watch.unchanged() and other.unchanged()


def test_weights_without_versions_without_memory_and_without_elements():
    with torch.inference_mode():
        owner = nn.Module()
        for name, weight in {"a": torch.rand(3), "b": torch.rand(3).to_sparse(), "c": torch.rand(0, 4)}.items():
            owner.register_buffer(name, weight)
        owner.register_buffer("d", torch.rand(3, device="meta"))
        watch = watch_of(owner)
        assert watch.unchanged()
        owner.a.data = torch.rand(3)
    assert not watch.unchanged()


class Equal(Owner):
    """Equal to all others."""

    def __eq__(self, other):
        return isinstance(other, Equal)

    def __hash__(self):
        return 1


class Unhashable(Owner):
    """As a dataclass is."""

    __hash__ = None


@pytest.mark.parametrize("kind", [Equal, Unhashable])
@pytest.mark.parametrize("index", range(2))
def test_modules_that_are_equal_or_have_no_hash(kind, index):
    owners = [kind(nn.Parameter(torch.rand(3))) for _ in range(2)]
    watch = watch_of(*owners)
    assert watch.unchanged()
    with torch.no_grad():
        owners[index].get_parameter("0").add_(1)
    assert not watch.unchanged()


def test_no_guard_expects_a_change(owners):
    """One that was made after a change held for all that followed."""
    watch = watch_of(*owners)
    assert watch.state() == watch.state()
    owners[0].get_parameter("0").data = torch.rand(3, 4)
    assert watch.state() != watch.state()


@pytest.mark.parametrize("values", [False, True])
def test_weights_are_not_kept(owners, values):
    watch = watch_of(*owners, values=values)
    gone, memory = map(weakref.ref, (owners[1], owners[1].get_parameter("0").untyped_storage()))
    del owners[1]
    gc.collect()
    assert gone() is None and memory() is None and not watch.unchanged()


def test_no_later_memory_is_taken_for_that_of_a_constant():
    """Graphs that were compiled for it would go on with its values."""
    owner = Owner(nn.Parameter(torch.ones(64, 64)))
    watch = watch_of(owner)
    for _ in range(20):
        owner.get_parameter("0").data = torch.ones(64, 64)
        assert not watch.unchanged()


def test_a_mode_of_the_user_is_not_asked(owners):
    class Refusing(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            raise AssertionError(function)

    watches = [watch_of(*owners, values=values) for values in (True, False)]
    with Refusing():
        assert all(watch.unchanged() for watch in watches)
