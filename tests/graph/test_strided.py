"""Which reads by address are views: those of a decomposed group normalisation are."""

import pytest
import torch
from torch._inductor.decomposition import select_decomp_table
from torch.fx import symbolic_trace
from torch.fx.experimental.proxy_tensor import make_fx

from torch_eqsat.graph.fx import STORED, uses_addresses
from torch_eqsat.graph.strided import replace_contiguous_views

aten = torch.ops.aten


def traced(function, *inputs):
    return make_fx(function, tracing_mode="fake")(*inputs)


def by_address(module):
    return [node for node in module.graph.nodes if uses_addresses(node)]


def test_a_read_of_all_of_a_contiguous_tensor_is_a_view():
    x = torch.randn(2, 3, 4)
    module = traced(lambda x: torch.as_strided(x.relu(), (6, 4), (4, 1)).exp(), x)
    replace_contiguous_views(module.graph)
    module.recompile()
    assert not by_address(module)
    assert torch.equal(module(x), x.relu().view(6, 4).exp())


def test_a_group_normalisation_reads_nothing_by_address():
    inputs = torch.randn(1, 4, 3, 3), torch.randn(4), torch.randn(4)
    norm = lambda x, weight, bias: torch.nn.functional.group_norm(x, 2, weight, bias)  # noqa: E731
    module = make_fx(norm, select_decomp_table(), tracing_mode="fake")(*inputs)
    assert by_address(module), "the decomposition is another one now, and needs no replacing"
    replace_contiguous_views(module.graph)
    assert not by_address(module)


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((4, 3), (1, 4), None), ((2, 4), (4, 1), None), ((3, 4), (4, 1), 0), ((3, 4), (0, 1), None)],
    ids=["transposed", "a part", "from an address", "repeated"],
)
def test_other_reads_stay(size, stride, offset):
    module = traced(lambda x: torch.as_strided(x.relu(), size, stride, offset), torch.randn(3, 4))
    replace_contiguous_views(module.graph)
    assert len(by_address(module)) == 1


def test_a_read_of_what_does_not_lie_contiguous_stays():
    module = traced(lambda x: torch.as_strided(x.relu(), (3, 4), (4, 1)), torch.randn(4, 3).t())
    replace_contiguous_views(module.graph)
    assert len(by_address(module)) == 1


def test_a_read_with_named_arguments_stays():
    module = symbolic_trace(lambda x: aten.as_strided.default(x, size=(3, 4), stride=(4, 1)))
    replace_contiguous_views(module.graph)
    assert len(by_address(module)) == 1


def test_what_is_written_by_address_is_not_replaced():
    module = traced(lambda x, y: torch.as_strided_scatter(x, y, (3, 4), (4, 1)), torch.randn(3, 4), torch.randn(3, 4))
    replace_contiguous_views(module.graph)
    assert len(by_address(module)) == 1


def test_inductor_goes_on_storing_what_was_read():
    module = traced(lambda x: torch.as_strided(x.relu(), (6, 4), (4, 1)).exp(), torch.randn(2, 3, 4))
    replace_contiguous_views(module.graph)
    (relu,) = (node for node in module.graph.nodes if node.target is aten.relu.default)
    assert relu.meta[STORED]


def test_a_read_of_which_nothing_is_known_stays():
    module = symbolic_trace(lambda x: aten.as_strided.default(x, (3, 4), (4, 1)))
    replace_contiguous_views(module.graph)
    assert len(by_address(module)) == 1
