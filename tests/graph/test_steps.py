"""Every k-th element of an axis is one column of rows of k elements."""

from functools import partial

import pytest
import torch

from tests.graph.test_translate import aten, meaning


def steps(x, *, dim, start, step):
    return aten.slice.Tensor(x, dim, start, 2**63 - 1, step)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_steps_are_translated_as_they_mean(trace, dim):
    translated = 0
    for size in (4, 5, 6, 12):
        x = torch.randn(2, 3, 2).repeat_interleave(2, dim).index_select(dim, torch.arange(size) % 2)
        for start in range(size):
            for step in range(2, size + 1):
                meant = meaning(trace, partial(steps, dim=dim, start=start, step=step), x)
                expected = x.index_select(dim, torch.arange(start, size, step))
                assert meant is None or torch.equal(meant, expected), (size, start, step)
                translated += meant is not None
    assert translated > 50


@pytest.mark.parametrize("start, known", [(0, False), (1, True), (3, True)])
def test_the_last_row_ends_where_the_axis_does(trace, start, known):
    x = torch.randn(5, 2)
    meant = meaning(trace, lambda x: aten.slice.Tensor(x, 0, start, 5, 2), x)
    assert (meant is not None) is known


def test_a_stop_before_the_end(trace):
    x = torch.randn(9, 2)
    assert torch.equal(meaning(trace, lambda x: aten.slice.Tensor(x, 0, 1, 6, 3), x), x[1:6:3])
