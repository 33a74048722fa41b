"""An element of each weight, read where it lies."""

import pytest
import torch

from torch_eqsat.planning.inductor.sampling import Sample, can_be_read

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.complex64, torch.int8, torch.bool]
FORMS = {
    "dense": lambda weight: weight,
    "turned": lambda weight: weight.T,
    "a part": lambda weight: weight[1:, 2:4],
    "with gaps": lambda weight: weight[::2, ::3],
    "expanded": lambda weight: weight[:1].expand(7, -1),
    "a row": lambda weight: weight[3],
    "one element": lambda weight: weight[1, 1],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_the_middle_element_is_read(form, dtype):
    weight = FORMS[form](torch.randint(0, 2, (5, 6)).to(dtype))
    middle = weight[tuple(n // 2 for n in weight.shape)]
    assert Sample([weight]).read().tobytes() == middle.reshape(1).view(torch.uint8).numpy().tobytes()


def test_elements_of_several_weights():
    weights = [torch.rand(n) for n in (1, 100, 10_000)]
    sample = Sample(weights)
    before = sample.read()
    weights[1].data.add_(1.0)
    assert (before != sample.read()).nonzero()[0].min() >= 4


def test_what_cannot_be_read():
    assert not any(map(can_be_read, [torch.rand(0, 3), torch.rand(3).to_sparse(), torch.rand(3, device="meta")]))
    gone = torch.rand(3)
    gone.untyped_storage().resize_(0)
    assert not can_be_read(gone)
    assert Sample([]).read().tobytes() == b""
