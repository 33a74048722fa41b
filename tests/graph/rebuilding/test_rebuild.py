"""Programs in the language back to FX graphs."""

import pytest
import torch

from tests.graph.rebuilding.programs import finish, start, targets
from torch_eqsat.errors import RebuildError
from torch_eqsat.graph.capture import capture
from torch_eqsat.graph.fx import STORED, mark_stored
from torch_eqsat.graph.rebuilding.fx_emitter import FxEmitter
from torch_eqsat.graph.rebuilding.rebuild import rebuild
from torch_eqsat.ir.builder import Handle
from torch_eqsat.ir.program import KERNEL
from torch_eqsat.ir.term import Node
from torch_eqsat.ir.types import TensorType


def test_association(trace):
    values = torch.rand(4, 8), torch.rand(8, 8), torch.rand(8, 2)
    module = trace(lambda x, a, b: (x @ a) @ b, *values)
    expected = module(*values)
    captured = capture(module.graph)
    program, t, (x, a, b) = start(captured, 0, 1, 2)
    assert finish(module, captured, program, t.matmul(x, t.matmul(a, b))) == 2
    assert targets(module) == ["aten.mm.default"] * 2
    torch.testing.assert_close(module(*values), expected)
    (output,) = module.graph.find_nodes(op="output")
    assert tuple(output.args[0].meta["val"].shape) == (4, 2)


@pytest.mark.parametrize(
    ("form", "rows", "calls"),
    [
        ("convolution", 4, ["convolution", "permute", "permute", "permute", "sin", "view", "view", "view"]),
        ("column", 1, ["add", "mm", "permute", "permute", "permute", "sin"]),
    ],
)
def test_a_product_in_another_form(trace, form, rows, calls):
    values = torch.rand(rows, 8), torch.rand(8, 6), torch.rand(6)
    module = trace(lambda x, a, b: torch.sin(x) @ a + b, *values)
    expected = module(*values)
    captured = capture(module.graph)
    program, t, (x, a, b) = start(captured, 0, 1, 2)
    uid = next(str(n["uid"]) for n in captured.graph.nodes if n.op == "fx" and "sin" in n["uid"])
    sine = t.apply("pointwise", [x], uid=uid, dtype="float32")
    product = t.matmul(sine, a)
    program.nodes[product.id] = Node("matmul", ((KERNEL, form),), program.nodes[product.id].children)
    finish(module, captured, program, t.add(product, b))
    assert sorted(name.split(".")[1].replace("reshape", "view") for name in targets(module)) == calls
    torch.testing.assert_close(module(*values), expected)


def test_rows_of_higher_rank_are_multiplied_as_linear_layers_are(trace):
    values = torch.rand(2, 3, 8), torch.rand(8, 6), torch.rand(6)
    module = trace(lambda x, a, b: (x.view(6, 8) @ a).view(2, 3, 6) + b, *values)
    expected = module(*values)
    captured = capture(module.graph)
    program, t, (x, a, b) = start(captured, 0, 1, 2)
    finish(module, captured, program, t.add(t.matmul(x, a), b))
    assert targets(module) == ["aten.reshape.default", "aten.addmm.default", "aten.reshape.default"]
    torch.testing.assert_close(module(*values), expected)


def test_the_copy_of_a_shared_output_belongs_where_that_output_does(trace):
    """Of a gradient's copy that was tagged as part of the forward graph the partitioner made an error."""
    module = trace(lambda x: (torch.sin(x), torch.sin(x + 0.0)), torch.randn(4))
    (output,) = module.graph.find_nodes(op="output")
    for node, tag in zip(output.args[0], ("must_be_in_forward", "is_backward"), strict=True):
        node.meta["partitioner_tag"] = tag
    captured = capture(module.graph)
    program, t, (x,) = start(captured, 0)
    program.roots = [t.apply("abs", [x]).id] * 2
    rebuild(captured, program, [-1, captured.term[output.args[0][0]]])
    first, second = output.args[0]
    assert str(second.target) == "aten.clone.default"
    assert (first.meta["partitioner_tag"], second.meta["partitioner_tag"]) == ("must_be_in_forward", "is_backward")


def stored(module):
    return [str(node.target) for node in module.graph.nodes if STORED in node.meta]


def test_what_a_filter_bank_reads_is_stored(trace):
    module = trace(lambda x: torch.sin(x), torch.randn(4, 8))
    captured = capture(module.graph)
    program, t, (x,) = start(captured, 0)
    finish(module, captured, program, t.filter_bank(t.pad(x, [(0, 0), (0, 2)]), [[1.0, 0.5, 2.0]], dim=1, into=0))
    assert stored(module) == ["aten.constant_pad_nd.default"]


def test_of_the_calls_for_one_that_is_stored_the_last_is(trace):
    values = torch.rand(1, 8), torch.rand(8, 6)
    module = trace(lambda x, a: (x @ a).sin(), *values)
    mark_stored(next(node for node in module.graph.nodes if "mm" in str(node.target)))
    captured = capture(module.graph)
    program, t, (x, a) = start(captured, 0, 1)
    product = t.matmul(x, a)
    program.nodes[product.id] = Node("matmul", ((KERNEL, "column"),), program.nodes[product.id].children)
    sine = next(node for node in captured.graph.nodes if node.op == "fx" and "sin" in node["uid"])
    program.roots = [program.add(Node("fx", sine.attrs, (product.id,)), product.type, False)]
    term = next(i for i, node in enumerate(captured.graph.nodes) if node.op == "fx" and "mm" in node["uid"])
    rebuild(captured, program, [term if i == product.id else -1 for i in range(len(program))])
    assert targets(module).count("aten.permute.default") == 3
    assert stored(module) == ["aten.permute.default"]
    (sine,) = (node for node in module.graph.nodes if "sin" in str(node.target))
    assert STORED in sine.args[0].meta


@pytest.mark.parametrize(
    ("op", "attributes", "calls"),
    [
        ("clamp", {"low": 0.0, "high": 6.0}, ["aten.clamp_min.default", "aten.clamp_max.default"]),
        ("clamp", {"low": None, "high": 0.5}, ["aten.clamp_max.default"]),
        ("flip", {"dim": 1}, ["prims.rev.default"]),
    ],
)
def test_only_what_inductor_has_kernels_for(trace, op, attributes, calls):
    """A clamp compiled to an error: it is taken apart before the pass, and nothing takes apart what comes after."""
    values = (torch.randn(4, 8),)
    module = trace(lambda x: torch.sin(x), *values)
    captured = capture(module.graph)
    program, t, (x,) = start(captured, 0)
    finish(module, captured, program, t.apply(op, [x], **attributes))
    assert targets(module) == calls


def test_calls_that_inductor_cannot_compile_are_refused(trace):
    module = trace(lambda x: torch.sin(x), torch.randn(4, 8))
    emitter = FxEmitter(capture(module.graph))
    (x,) = module.graph.find_nodes(op="placeholder")
    with pytest.raises(RebuildError, match=r"no kernel for aten\.clamp\.default"):
        emitter.call(torch.ops.aten.clamp.default, x, 0.0, 1.0)


def test_captured_calls_are_repeated_on_other_operands(trace):
    """Of what it has no kernel for Inductor leaves some calls in the graph: those it compiles. They were refused."""
    values = torch.rand(4, 3).bfloat16(), torch.tensor([0, 2]), torch.rand(2, 3).bfloat16()
    module = trace(lambda x, index, y: torch.index_add(torch.relu(x), 0, index, y), *values)
    captured = capture(module.graph)
    call = next(n for n in captured.graph.nodes if n.op == "fx" and "index_add" in n["uid"])
    program, _, (x, index, y) = start(captured, *captured.leaves)
    type_ = TensorType((4, 3), "bfloat16")
    root = program.add(Node("fx", call.attrs, (x.id, index.id, y.id)), type_, False)
    finish(module, captured, program, Handle(root, type_))
    assert targets(module) == ["aten.index_add.default"]


def test_a_row_loses_its_first_axis(trace):
    """Behind a product with a packed weight Inductor raised on a reshape to one axis."""
    values = torch.rand(8), torch.rand(8, 3)
    module = trace(lambda x, w: torch.sin(x[None] @ w)[0], *values)
    captured = capture(module.graph)
    program, t, (x, w) = start(captured, *captured.leaves)
    finish(module, captured, program, t.view(t.matmul(t.view(x, (1, 8)), w), (3,)))
    assert targets(module) == ["aten.reshape.default", "aten.mm.default", "aten.squeeze.dim"]
    torch.testing.assert_close(module(*values), values[0] @ values[1])


def test_bias_becomes_an_operand(trace):
    values = torch.rand(4, 8), torch.rand(8, 6), torch.rand(6)
    module = trace(lambda x, a, b: torch.sin(x) @ a + b, *values)
    expected = module(*values)
    captured = capture(module.graph)
    program, t, (x, a, b) = start(captured, 0, 1, 2)
    uid = next(str(n["uid"]) for n in captured.graph.nodes if n.op == "fx" and "sin" in n["uid"])
    sine = t.apply("pointwise", [x], uid=uid, dtype="float32")
    finish(module, captured, program, t.add(t.matmul(sine, a), b))
    assert targets(module) == ["aten.sin.default", "aten.addmm.default"]
    torch.testing.assert_close(module(*values), expected)


def test_numbers_and_identity_kernels(trace):
    values = torch.rand(1, 2, 5, 5), torch.rand(2, 2, 3, 3)
    module = trace(lambda x, w: torch.conv2d(x, w, padding=1) + x + 1.0, *values)
    expected = module(*values)
    captured = capture(module.graph)
    program, t, (x, w) = start(captured, 0, 1)
    geometry = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    kernel = t.add(w, t.dirac((2, 2, 3, 3), 1, "float32"))
    finish(module, captured, program, t.add(t.apply("conv", (x, kernel), **geometry), t.scalar(1.0)))
    assert targets(module).count("aten.convolution.default") == 1
    torch.testing.assert_close(module(*values), expected)


def test_number_where_a_tensor_is_needed(trace):
    module = trace(lambda x: torch.cat([x, torch.ones(4, 4)], 1), torch.rand(4, 4))
    captured = capture(module.graph)
    program, t, (x,) = start(captured, captured.term[module.graph.find_nodes(op="placeholder")[0]])
    finish(module, captured, program, t.cat([x, t.expand(t.view(t.scalar(1.0), (1, 1)), (4, 4))], 1))
    value = torch.rand(4, 4)
    torch.testing.assert_close(module(value), torch.cat([value, torch.ones(4, 4)], 1))


def test_output_of_another_shape_is_refused(trace):
    module = trace(lambda x: torch.sin(x), torch.rand(4, 8))
    captured = capture(module.graph)
    program, t, (x,) = start(captured, 0)
    with pytest.raises(RebuildError, match="would become"):
        finish(module, captured, program, t.view(x, (8, 4)))


def test_mutation_stays_last(trace):
    values = torch.rand(4, 8), torch.rand(8, 8), torch.rand(8, 8), torch.zeros(4, 8)

    def function(x, a, b, buffer):
        y = (x @ a) @ b
        buffer.copy_(y)
        return y + 1

    module = trace(function, *values)
    captured = capture(module.graph)
    program, t, (x, a, b, buffer) = start(captured, 0, 1, 2, 3)
    y = t.matmul(x, t.matmul(a, b))
    (pinned,) = [i for i, n in enumerate(captured.graph.nodes) if n.op == "fx" and str(n["uid"]).startswith("pinned")]
    copy = captured.graph.nodes[pinned]
    copied = program.add(Node("fx", copy.attrs, (buffer.id, y.id)), captured.graph.types[pinned], False)
    result = t.add(y, t.scalar(1.0))
    roots = {pinned: Handle(copied, TensorType((4, 8), "float32"))}
    finish(module, captured, program, *(roots.get(root, result) for root in captured.graph.roots))
    assert "copy_" in targets(module)[-1]
    fresh = [value.clone() for value in values]
    expected = (values[0] @ values[1]) @ values[2]
    torch.testing.assert_close(module(*fresh), expected + 1)
    torch.testing.assert_close(fresh[3], expected)


def test_a_captured_view_of_what_became_strided(trace):
    """The copy that made the operand contiguous is no part of the language; without it the view becomes a reshape."""
    values = (torch.rand(64, 26, 10),)
    module = trace(lambda x: torch.sin(x[:, 1].clone(memory_format=torch.contiguous_format).view(640)), *values)
    expected = module(*values)
    captured = capture(module.graph)
    view, sine = (
        next(n for n in captured.graph.nodes if n.op == "fx" and name in n["uid"]) for name in ("view", "sin")
    )
    program, t, (x,) = start(captured, 0)
    row = t.view(t.slice(x, 1, 1, 2), (64, 10))
    flat = program.add(Node("fx", view.attrs, (row.id,)), TensorType((640,), "float32"), False)
    root = program.add(Node("fx", sine.attrs, (flat,)), TensorType((640,), "float32"), False)
    finish(module, captured, program, Handle(root, TensorType((640,), "float32")))
    assert "aten.clone.default" not in targets(module)
    torch.testing.assert_close(module(*values), expected)


def test_attention_reads_rows_that_lie_side_by_side(trace):
    """The kernel reads past the end of a query whose last axis is not contiguous."""
    q, k, v = torch.rand(4, 5, 2, 1), torch.rand(1, 2, 5, 4), torch.rand(1, 2, 5, 4)
    module = trace(lambda q, k, v: torch.sin(q).sum() + k + v, q, k, v)
    captured = capture(module.graph)
    program, t, handles = start(captured, 0, 1, 2)
    turned = t.permute(handles[0], (3, 2, 1, 0))
    finish(module, captured, program, t.apply("sdpa", (turned, *handles[1:]), causal=False, scale=0.5))
    expected = torch.nn.functional.scaled_dot_product_attention(q.permute(3, 2, 1, 0), k, v, scale=0.5)
    torch.testing.assert_close(module(q, k, v), expected)
