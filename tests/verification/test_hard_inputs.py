"""Values for the placeholders of a graph: known ones, random ones and hard ones."""

import pytest
import torch

from torch_eqsat.verification.hard_inputs import sample_inputs
from torch_eqsat.verification.judge import disagreement


def test_sample_inputs(trace):
    graph = trace(lambda x, i: x[i], torch.rand(4, 2), torch.tensor([0, 1])).graph
    known = [torch.ones(4, 2), torch.tensor([1, 1])]
    assert all(a is b for a, b in zip(sample_inputs(graph, known), known, strict=True))
    made = sample_inputs(graph, [])
    assert [tuple(v.shape) for v in made] == [(4, 2), (2,)]
    assert [v.dtype for v in made] == [torch.float32, torch.int64]
    assert torch.equal(made[0], sample_inputs(graph, [])[0])
    other = sample_inputs(graph, [torch.ones(5, 2), known[1]])
    assert tuple(other[0].shape) == (4, 2) and other[1] is known[1]


STRIDES = {
    "transposed": lambda x: x.mT.contiguous().mT,
    "with gaps": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
    "channels last": lambda x: x[..., None].to(memory_format=torch.channels_last)[..., 0],
}


@pytest.mark.parametrize("laid", STRIDES.values(), ids=STRIDES)
def test_sample_inputs_lie_as_those_of_the_graph(trace, laid):
    x = laid(torch.randn(2, 3, 4))
    (made,) = sample_inputs(trace(lambda x: x + 1, x).graph, [])
    assert made.stride() == x.stride() and made.unique().numel() == 24
    expanded = torch.randn(1, 4).expand(3, 4)
    assert sample_inputs(trace(lambda x: x + 1, expanded).graph, [])[0].shape == (3, 4)


def test_hard_inputs_are_tried_on_views_that_other_strides_do_not_allow(trace):
    """Of a permuted input: hard inputs of other strides would raise in the original, and go untried."""

    def rows(x):
        return x.permute(0, 2, 1).view(-1, 4)

    def judged(original, rewritten, x):
        return disagreement(trace(original, x), trace(rewritten, x), [x])

    x = torch.randn(2, 3, 4).mT
    spread = judged(lambda x: rows(x) * 2.0, lambda x: rows(x) * 2.0 + 0.0 * x.sum(), x)
    assert spread == "output 0: infinities or NaNs differ (an infinity in the first sample)"
    mask = torch.zeros(2, 3, 4).mT
    closed = judged(lambda m: rows(m).softmax(-1), lambda m: rows(m * 0.0 + 0.0 * m.sum()).softmax(-1), mask)
    assert "masks" in closed
