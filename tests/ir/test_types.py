"""Types of tensors and broadcasting."""

import itertools

import pytest
import torch

from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.ir.types import FLOATING, ITEM_BYTES, TensorType, broadcast_shapes


def test_sizes():
    type_ = TensorType((2, 3, 4), "float16")
    assert (type_.rank, type_.numel, type_.bytes) == (3, 24, 48)
    assert TensorType((), "int64").numel == 1


def test_item_bytes_agree_with_torch():
    for name, size in ITEM_BYTES.items():
        dtype = getattr(torch, name)
        assert dtype.itemsize == size
        assert dtype.is_floating_point == (name in FLOATING) == TensorType((1,), name).is_floating


def test_broadcasting_agrees_with_torch():
    shapes = [shape for rank in range(4) for shape in itertools.product((1, 2, 3), repeat=rank)]
    for a, b in itertools.product(shapes, shapes):
        try:
            expected = tuple(torch.broadcast_shapes(a, b))
        except RuntimeError:
            with pytest.raises(TypeMismatchError, match="do not broadcast"):
                broadcast_shapes([a, b])
        else:
            assert broadcast_shapes([a, b]) == expected


def test_broadcasting_of_one_and_of_none():
    assert broadcast_shapes([(2, 3)]) == (2, 3)
    assert broadcast_shapes([]) == ()
