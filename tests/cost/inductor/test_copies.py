"""Views that are copies, as torch has it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_eqsat.cost.inductor.copies import VECTOR, contiguous, shuffled_views, viewed
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.cost.programs import captured_program
from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.term import TermGraph

relaxed = settings(max_examples=200, deadline=None, derandomize=True, database=None)
SHAPES = st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=5).map(tuple)


@relaxed
@given(st.data(), SHAPES)
def test_strides_are_those_of_torch(data, shape):
    x = torch.zeros(shape).permute(data.draw(st.permutations(range(len(shape)))))
    sizes = [n for n in x.shape for n in ((2, 2) if n == 4 else (n,))]
    target = data.draw(st.sampled_from([x.shape, (x.numel(),), tuple(sizes), (*x.shape[:-2], -1), (1, *x.shape)]))
    target = torch.zeros(shape).reshape(target).shape
    try:
        expected = x.view(target)
    except RuntimeError:
        expected = None
    found = viewed(x.shape, x.stride(), target)
    assert (found is None) == (expected is None)
    if found is not None:
        actual = x.as_strided(target, found)
        assert torch.equal(actual, expected)


def test_contiguous():
    assert contiguous((2, 3, 4)) == [12, 4, 1]


@pytest.mark.parametrize(("width", "kind"), [(VECTOR, 0), (2, 1)], ids=["vectors", "elements"])
def test_heads_that_come_together_are_copied(task_of, width, kind):
    task = task_of(lambda x: x.permute(1, 0, 2).reshape(3, 4 * width), (4, 3, width))
    found = shuffled_views(task.graph)
    assert len(found[kind]) == 1 and not found[1 - kind]
    free = task_of(lambda x: x.permute(0, 2, 1).reshape(4, width, 3), (4, 3, width))
    assert shuffled_views(free.graph) == (frozenset(), frozenset())
    assert captured_program(task, Pricing(False)).cost > captured_program(free, Pricing(False)).cost


def test_rows_of_a_product_are_copied_as_a_view_of_them_is():
    graph = TermGraph()
    t = Builder(GraphStore(graph))
    heads, matrix = t.input((2, 4, 3, 2 * VECTOR)), t.input((2 * VECTOR, 5))
    copied = t.matmul(t.permute(heads, (0, 2, 1, 3)), matrix)
    t.matmul(heads, matrix)
    t.matmul(t.permute(t.input((4, 3)), (1, 0)), t.input((4, 5)))
    assert shuffled_views(graph) == (frozenset([copied.id]), frozenset())
