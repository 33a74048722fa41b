"""Verification finds what is wrong with wrong laws."""

import random

import pytest

from torch_eqsat.errors import LawError
from torch_eqsat.graph import lowering
from torch_eqsat.ir.builder import Handle
from torch_eqsat.ir.term import attributes
from torch_eqsat.laws.law import equation, law
from torch_eqsat.verification import laws as verification
from torch_eqsat.verification.laws import WrongLawError, check, check_assumptions, check_variant, law_named, verify


@law("mul(x, s)", example="mul([4, 3], 2.0)")
def doubled(t, x, s):
    """x · s = x + x (for s = 2 alone)"""
    return t.add(x, x) if s.rank == 0 else None


@law("p := permute(q := permute(x))", exactness="bitwise", example="permute(permute([2, 3], dims=[1, 0]), dims=[1, 0])")
def permutations_cancel(t, p, q, x):
    """permute(permute(x)) = x (for permutations that undo each other alone)"""
    return x if p.shape == x.shape else None


@equation("add(x, y) = add(y, mul(x, 1.0001))", example="add([4, 3], [4, 3])")
def nearly_equal():
    """x + y = y + 1.0001 x"""


@equation("mul(x, 0) = add(x, mul(x, -1))", exactness="bitwise", example="mul([4, 3], 0)")
def bits_of_zero():
    """0 · x = x − x (−0 and 0)"""


@equation("relu(x) = abs(x)", example="relu(relu([4, 3]))")
def wrong_below_zero():
    """relu(x) = |x|"""


@pytest.mark.parametrize("wrong", [doubled, nearly_equal, bits_of_zero, wrong_below_zero], ids=lambda w: w[0].name)
def test_wrong_values_are_found(wrong):
    with pytest.raises(WrongLawError) as caught:
        for seed in range(5):
            verify(wrong, draws=40, seed=seed)
    message = str(caught.value)
    assert f"law {wrong[0].name} (" in message and "test_laws.py" in message
    assert f"check(law_named({wrong[0].name!r}), " in message


def test_variants_find_what_the_example_hides():
    (wrong,) = permutations_cancel
    assert check(wrong, wrong.examples[0])  # it holds there
    with pytest.raises(WrongLawError):
        for seed in range(3):
            check(wrong, "permute(permute([3, 3, 3], dims=[1, 2, 0]), dims=[1, 2, 0])", seed)


@law("y := clamp(x)", example="clamp([4, 3], low=0.0)")
def other_gradient(t, y, x):
    """clamp(x, 0) = relu(x), of which the test cuts the gradient off"""
    return t.apply("relu", (x,))


@law("mul(x, s := scalar())", example="mul([4, 3], 1.0)", refused="mul([4, 3], 2.0)")
def underflows(t, x, s):
    """x · 1 = (x · 1e-20) · 1e20, which is nothing in half precision"""
    tiny, huge = t.scalar(1e-20), t.scalar(1e20)
    return t.mul(t.mul(x, tiny), huge) if s["value"] == 1 else None


@law("y := clamp(x)", exactness="bitwise", example="clamp([4, 3], low=0.0)")
def drops_nan(t, y, x):
    """clamp(x, 0) = x where x = relu(x), else 0: NaN becomes 0"""
    if (y["low"], y["high"]) != (0, None) or x.rank == 0:
        return None
    same = t.apply("equal", (x, t.apply("relu", (x,))))
    return t.apply("where", (same, x, t.scalar(0.0)))


@pytest.mark.parametrize(
    ("wrong", "stage", "message"),
    [
        (other_gradient, "_gradients", "gradients off by"),
        (underflows, "_in_floats", "float16: error"),
        (drops_nan, "_with_special_values", "NaN, infinities or signed zeros"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_stage_finds_what_no_other_does(monkeypatch, wrong, stage, message):
    def without_gradient(emit, attrs, args):
        return args[0].detach().relu() + 0 * args[0]

    if wrong is other_gradient:
        monkeypatch.setitem(lowering.LOWERINGS, "relu", without_gradient)
    (item,) = wrong
    with pytest.raises(WrongLawError, match=message):
        for seed in range(8):
            check(item, item.examples[0], seed)
    monkeypatch.setattr(verification, stage, lambda *_: "")
    for seed in range(8):
        assert check(item, item.examples[0], seed)


def test_near_miss_that_fires():
    @law("mul(x, s)", example="mul([4, 3], 2.0)", refused="mul([4, 3], [4, 3])")
    def commuted(t, x, s):
        """x · s = s · x"""
        return t.add(t.mul(s, x), t.scalar(0.0))

    with pytest.raises(LawError, match="fires on its near miss"):
        verify(commuted, draws=0)


def test_variants_fire_often_enough():
    fired = {}
    for name in ("matmul_is_associative", "slice_through_view", "images_add[conv.1]", "padding_into_convolution"):
        item = law_named(name)
        fired[name] = sum(check_variant(item, item.examples[0], random.Random(seed)) for seed in range(60))
    assert min(fired.values()) >= 6, fired


def test_unknown_law():
    with pytest.raises(KeyError):
        law_named("no such law")


@law("conv(x, w)", example="conv([1, 4, 5], [4, 2, 3], groups=2)")
def in_one_group(t, x, w):
    """A grouped convolution is one without groups, with zeros in its kernel"""
    joined = law_named("groups_are_joined")
    y = Handle(-1, x.type, "conv", attributes(stride=(1,), padding=(0,), dilation=(1,), groups=2))
    return joined.build(t, y, x, w) if w.shape[1] * 2 == x.shape[1] else None


def test_what_a_law_assumes_has_to_be_declared():
    """An infinity in one group would reach the other."""
    with pytest.raises(LawError, match=r"in_one_group .* holds only under all_finite"):
        check_assumptions(in_one_group[0])
