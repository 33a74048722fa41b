"""Views in rebuilt graphs, and graphs without tensors."""

import operator

import pytest
import torch
from torch.fx import Graph, GraphModule

from tests.graph.rebuilding.programs import finish, start
from torch_eqsat.errors import RebuildError
from torch_eqsat.graph.capture import capture
from torch_eqsat.graph.rebuilding.fx_emitter import FxEmitter
from torch_eqsat.graph.rebuilding.rebuild import rebuild
from torch_eqsat.ir.builder import Handle
from torch_eqsat.ir.term import Node
from torch_eqsat.ir.types import TensorType


def test_views_in_another_dtype_of_sums_that_may_go(trace):
    """Inductor removes a sum with zero whatever strides its operand has, and a view of what is left raised."""
    graph = trace(lambda x: (x[:, :1].expand(4, 6), x * 2.0), torch.empty(4, 6)).graph
    strided, dense = graph.find_nodes(op="output")[0].args[0]
    with graph.inserting_after(dense):
        view = graph.call_function(torch.ops.aten.view.dtype, (dense, torch.float16))
    view.meta["val"] = dense.meta["val"].view(torch.float16)
    captured = capture(graph)
    (call,) = (call for call in captured.calls.values() if call.origin is view)
    emitter = FxEmitter(captured)
    sums = {node: emitter.fresh(torch.ops.aten.add.Tensor, node, 0.0) for node in (strided, dense)}
    with pytest.raises(RebuildError, match="viewed in another dtype"):
        emitter.repeat(call, [sums[strided]], [TensorType((4, 6), "float32")])
    assert emitter.repeat(call, [sums[dense]], [TensorType((4, 6), "float32")]).args[0] is sums[dense]


@pytest.mark.parametrize("whole", [True, False], ids=["with the whole", "without it"])
def test_views_of_one_result_stay_so(trace, whole):
    """A program may compute each on its own; a write into one was not seen in the other."""

    def function(x, w):
        y = x @ w
        return (y if whole else y[None]), y.t()

    values = torch.rand(4, 3), torch.rand(3, 5)
    module = trace(function, *values)
    expected = module(*values)
    captured = capture(module.graph)
    program, t, (x, w) = start(captured, *captured.leaves)
    y = t.matmul(x, w)
    turned = t.matmul(t.permute(w, (1, 0)), t.permute(x, (1, 0)))
    finish(module, captured, program, y if whole else t.view(y, (1, 4, 5)), turned)
    found = module(*values)
    torch.testing.assert_close(found, expected)
    found[0].fill_(7.0)
    assert (found[1] == 7.0).all() and [f.stride() for f in found] == [e.stride() for e in expected]


def test_a_view_that_schemas_tell_is_copied_where_it_is_returned(trace):
    """Of a conjugate that a program returned without its copy a write changed the input."""
    z = torch.randn(3, 3, dtype=torch.complex64)
    module = trace(lambda z: torch._conj(z).clone(), z)
    captured = capture(module.graph)
    view = next(n for n in captured.graph.nodes if n.op == "fx" and "_conj" in n["uid"])
    type_ = TensorType((3, 3), "complex64")
    program, _, (leaf,) = start(captured, *captured.leaves)
    finish(module, captured, program, Handle(program.add(Node("fx", view.attrs, (leaf.id,)), type_, False), type_))
    before = z.clone()
    found = module(z)
    torch.testing.assert_close(found, before.conj())
    found.zero_()
    assert torch.equal(z, before)


def test_a_graph_of_sizes_alone():
    """It had no device, and was left as it is after a fault."""
    graph = Graph()
    graph.output((graph.call_function(operator.mul, (graph.placeholder("n"), 2)),))
    module = GraphModule({}, graph)
    captured = capture(module.graph)
    rebuild(captured, captured.graph, range(len(captured.graph)))
    module.recompile()
    assert module(3) == (6,)
