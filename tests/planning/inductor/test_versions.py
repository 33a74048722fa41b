"""Notes on weights that are constants."""

import copy

import pytest
import torch
from torch import nn

from torch_eqsat.planning.inductor import versions
from torch_eqsat.planning.inductor.versions import MOST_CHANGES, content_of, keeps_changing, note_constant, note_of

DTYPES = [torch.float32, torch.bfloat16, torch.complex64, torch.int8, torch.bool]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_content_of_a_weight(dtype):
    weight = torch.ones(3, 4).to(dtype).T
    note_constant(weight, values=True)
    before = content_of(weight, values=True)
    assert content_of(weight, values=True) == before
    weight.data[1, 2] = 0
    assert content_of(weight, values=True) != before


def test_empty_weights_have_contents():
    weight = nn.Parameter(torch.ones(0, 4))
    assert content_of(weight, values=True)


@pytest.mark.parametrize("form", [lambda w: w, lambda w: w.T, lambda w: w[1:, 2:4], lambda w: w[1, 1]])
def test_the_middle_element_of_a_weight(form):
    weight = form(torch.rand(5, 6))
    middle = weight[tuple(n // 2 for n in weight.shape)]
    assert content_of(weight) == middle.reshape(1).view(torch.uint8).numpy().tobytes()


def test_what_cannot_be_read():
    gone = torch.rand(3)
    gone.untyped_storage().resize_(0)
    unread = [torch.rand(0, 3), torch.rand(3).to_sparse(), torch.rand(3, device="meta"), gone]
    assert not any(map(content_of, unread))


@pytest.mark.parametrize("inference", [False, True])
def test_moves_are_counted(inference):
    with torch.inference_mode(inference):
        weight = torch.rand(64, 64)
        for _ in range(MOST_CHANGES):
            note_constant(weight)
            assert not keeps_changing(weight)
            weight.data = torch.rand(64, 64)
        assert keeps_changing(weight)


def test_other_memory_at_the_same_address_is_a_change(monkeypatch):
    """A GPU's allocator gives a model that comes back the blocks that it had."""
    monkeypatch.setattr(torch.Tensor, "data_ptr", lambda weight: 64)
    monkeypatch.setattr(versions, "content_of", lambda weight, values=False: b"")
    weight = nn.Parameter(torch.rand(8))
    for _ in range(MOST_CHANGES):
        note_constant(weight)
        assert not keeps_changing(weight)
        weight.data = weight.data.clone()
    assert keeps_changing(weight)


def test_a_copy_has_no_note():
    weight = nn.Parameter(torch.rand(2))
    note_constant(weight, values=True)
    assert note_of(copy.deepcopy(weight)).stood is None
