"""Copies that lie in memory as another value does."""

import pytest
import torch

from torch_eqsat.graph.rebuilding.strides import copied_with_strides, same_strides

X = torch.arange(4 * 6 * 10.0).reshape(4, 6, 10)
LAYOUTS = {
    "contiguous": lambda x: x.clone(),
    "transposed": lambda x: x.transpose(0, 2).contiguous().transpose(0, 2),
    "rotated": lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
    "rows of a larger value": lambda x: torch.zeros(4, 6, 16)[:, :, 2:12].copy_(x),
    "columns of a larger value": lambda x: torch.zeros(4, 9, 10)[:, 1:7].copy_(x),
    "every second": lambda x: torch.zeros(4, 6, 20)[:, :, ::2].copy_(x),
    "gaps twice": lambda x: torch.zeros(4, 8, 30)[:, 1:7, ::3].copy_(x),
    "copies": lambda x: x[:, :1].clone().expand(4, 6, 10),
    "images of channels": lambda x: x[:, :, :, None].contiguous(memory_format=torch.channels_last),
    "one element": lambda x: x[:1, :1, :1].clone(),
}


@pytest.mark.parametrize("returned", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_strides_are_copied(trace, name, returned):
    laid = LAYOUTS[name](X)
    module = trace(lambda x, y: (x * 2.0, y * 2.0), laid.contiguous(), laid)
    graph = module.graph
    (output,) = graph.find_nodes(op="output")
    new, old = output.args[0]
    with torch.no_grad():
        old.meta["val"] = old.meta["val"].new_empty_strided(laid.shape, laid.stride())
    assert same_strides(old, old)

    def emit(target, *args, **kwargs):
        with graph.inserting_before(output):
            node = graph.call_function(target, args, kwargs)
        fake = torch.fx.map_arg((args, kwargs), lambda n: n.meta["val"])
        node.meta["val"] = target(*fake[0], **fake[1])
        return node

    copy = copied_with_strides(emit, new, old, returned=returned)
    assert copy is not None
    assert not (returned and graph.find_nodes(op="call_function", target=torch.ops.aten.constant_pad_nd.default))
    output.args = (copy,)
    module.recompile()
    result = module(laid.contiguous(), laid)
    assert torch.equal(result, laid * 2.0)
    assert [s for n, s in zip(laid.shape, result.stride(), strict=True) if n > 1] == [
        s for n, s in zip(laid.shape, laid.stride(), strict=True) if n > 1
    ]


def test_overlapping_memory_is_not_copied(trace):
    module = trace(lambda x: (x + 1.0, x * 2.0), torch.randn(4, 4))
    (output,) = module.graph.find_nodes(op="output")
    new, old = output.args[0]
    old.meta["val"] = old.meta["val"].new_empty(10).as_strided((4, 4), (2, 1))
    assert copied_with_strides(lambda *args, **kwargs: new, new, old) is None
