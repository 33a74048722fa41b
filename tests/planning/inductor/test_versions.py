"""Notes on weights that are constants."""

import copy

import pytest
import torch
from torch import nn

from torch_eqsat.planning.inductor.versions import MOST_CHANGES, keeps_changing, note_constant, note_of

DTYPES = [torch.float32, torch.bfloat16, torch.complex64, torch.int8, torch.bool]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_content_of_a_weight(dtype):
    weight = torch.ones(3, 4).to(dtype).T
    note_constant(weight, values=True)
    before = note_of(weight).content()
    assert note_of(weight).content() == before
    weight.data[1, 2] = 0
    assert note_of(weight).content() != before


def test_empty_weights_have_contents():
    weight = nn.Parameter(torch.ones(0, 4))
    note_constant(weight, values=True)
    assert note_of(weight).content()


def test_no_later_memory_has_the_address_of_a_constant():
    """Graphs that were compiled for it would take it for what it was."""
    weight = nn.Parameter(torch.rand(64, 64))
    note_constant(weight)
    address = weight.data_ptr()
    for _ in range(20):
        weight.data = torch.rand(64, 64)
        assert weight.data_ptr() != address


@pytest.mark.parametrize("inference", [False, True])
def test_moves_are_counted(inference):
    with torch.inference_mode(inference):
        weight = torch.rand(64, 64)
        for _ in range(MOST_CHANGES):
            note_constant(weight)
            assert not keeps_changing(weight)
            weight.data = torch.rand(64, 64)
        assert keeps_changing(weight)


def test_a_copy_has_no_note():
    weight = nn.Parameter(torch.rand(2))
    note_constant(weight, values=True)
    assert note_of(copy.deepcopy(weight)).stood is None
