"""What a frozen convolution takes in, operator by operator."""

import pytest

from torch_eqsat.cost.inductor.fusion import Stage, stage_of
from torch_eqsat.ir.term import Node, attributes
from torch_eqsat.ir.types import TensorType

IMAGE, CHANNELS, PIXELS = ((1, 8, 4, 4), (8, 1, 1), (4, 4))
NONE, ENDED, BOUNDED, ADDED, FOLDED = Stage


def stage(op, *operands, **attrs):
    """Operands are a stage (a value of image shape) or the shape of a constant."""
    types = [TensorType(IMAGE if isinstance(o, Stage) else o, "float32") for o in operands]
    constants = [not isinstance(o, Stage) for o in operands]
    stages = [o if isinstance(o, Stage) else NONE for o in operands]
    return stage_of(Node(op, attributes(**attrs), tuple(range(len(operands)))), types, constants, stages)


@pytest.mark.parametrize("op", ["add", "mul"])
def test_constants_of_channels_are_folded(op):
    assert stage(op, FOLDED, CHANNELS) == stage(op, CHANNELS, FOLDED) == stage(op, FOLDED, ()) == FOLDED
    assert stage(op, FOLDED, PIXELS) == NONE
    assert stage(op, ADDED, CHANNELS) == stage(op, ENDED, CHANNELS) == NONE


def test_a_quotient_by_a_constant_is_folded_and_one_of_a_constant_is_not():
    assert stage("div", FOLDED, CHANNELS) == FOLDED
    assert stage("div", CHANNELS, FOLDED) == NONE


def test_one_tensor_is_added_then_relu_alone():
    assert stage("add", FOLDED, NONE) == stage("add", NONE, FOLDED) == stage("add", FOLDED, ENDED) == ADDED
    assert stage("mul", FOLDED, NONE) == stage("add", ADDED, NONE) == NONE
    assert stage("relu", ADDED) == ENDED
    assert stage("sigmoid", ADDED) == NONE


def test_a_batch_norm_of_half_precision_is_folded_too():
    assert stage("convert", FOLDED, dtype="float32") == FOLDED
    assert stage("convert", ADDED, dtype="float32") == stage("convert", NONE, dtype="float32") == NONE


def test_one_function_is_applied():
    assert {stage(op, FOLDED) for op in ("relu", "sigmoid", "tanh")} == {ENDED}
    assert stage("relu", ENDED) == stage("exp", FOLDED) == stage("relu", NONE) == NONE


def test_two_bounds_are_one_function():
    assert stage("clamp", FOLDED, low=0.0, high=6.0) == ENDED
    assert stage("clamp", FOLDED, low=0.0, high=None) == BOUNDED
    assert stage("clamp", BOUNDED, low=None, high=6.0) == BOUNDED
    assert stage("clamp", ENDED, low=None, high=6.0) == stage("relu", BOUNDED) == NONE


def test_only_a_convolution_with_a_frozen_weight_begins():
    window = (8, 8, 1, 1)
    assert stage("conv", NONE, window) == FOLDED
    assert stage("conv", NONE, NONE) == stage("conv", IMAGE, window) == NONE
    types = [TensorType(IMAGE, "float64"), TensorType(window, "float64")]
    assert stage_of(Node("conv", (), (0, 1)), types, [False, True], [NONE, NONE]) == NONE
