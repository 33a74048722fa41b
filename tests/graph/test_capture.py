"""Capture and rebuild: a graph without any rewrite comes back as it was."""

import pytest
import torch
from torch.fx import Graph, GraphModule, Interpreter
from torch.nn import functional

from torch_eqsat.graph.calls import tensor_type
from torch_eqsat.graph.capture import capture, constant_nodes
from torch_eqsat.graph.copies import copied
from torch_eqsat.graph.rebuilding.rebuild import rebuild
from torch_eqsat.ir.term import Node, TermGraph
from torch_eqsat.ir.types import TensorType

aten = torch.ops.aten


@torch.library.custom_op("eqsat_tests::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@twice.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def mlp(x, a, b):
    return functional.gelu(x @ a + b) @ a.t()


def conv_bn_relu(x, w, mean, var, scale, shift):
    return functional.relu(
        functional.batch_norm(functional.conv2d(x, w, padding=1), mean, var, scale, shift, training=False)
    )


def layer_norm(x, scale, shift):
    return functional.layer_norm(x, (8,), scale, shift) + x


def attention(q, k, v):
    weights = torch.softmax(q @ k.transpose(-1, -2) * 0.5, dim=-1)
    return weights @ v


def fused_attention(q, k, v):
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def embedding(index, table):
    return functional.embedding(index, table).sum(1)


def split(x):
    a, b, c = x.split([1, 2, 5], dim=1)
    d, e = x.chunk(2)
    return a * b.sum(), c.relu(), d + e


def mutation(x, buffer):
    buffer.copy_(buffer * 0.9 + x.mean(0) * 0.1)
    return x - buffer


def dropout(x):
    return functional.dropout(x, 0.5, training=True) + torch.rand_like(x) + torch.rand_like(x)


def custom(x):
    return torch.ops.eqsat_tests.twice(x) + 1


def max_pool(x):
    values, indices = functional.max_pool2d(x, 2, return_indices=True)
    return values * 2, indices


def unknown(x):
    values, indices = torch.sort(x.cumsum(0), dim=0)
    return values.flip(0), indices, torch.linalg.inv(x.t() @ x + torch.eye(8))


def pooled(x, w):
    y = functional.interpolate(functional.avg_pool2d(functional.conv2d(x, w), 2), scale_factor=2.0, mode="nearest")
    return functional.pad(y, (1, 0, 2, 0)), y.mean((2, 3)), torch.cat([y, y * 2], 1)[:, 1:3]


def mixed_dtypes(x):
    return (x > 0).to(torch.int64).sum(), x.half().float(), torch.where(x > 0, x, 0.0), x.int() // 2


def constants(x):
    return x + torch.arange(8, dtype=torch.float32), torch.full((3,), 2.0)


def returns_inputs(x, y):
    return x, y + 1, x


def rand(*shape):
    return torch.rand(shape)


CASES = [
    (mlp, [rand(4, 8), rand(8, 6), rand(6)]),
    (conv_bn_relu, [rand(2, 3, 6, 6), rand(4, 3, 3, 3), rand(4), rand(4) + 1, rand(4), rand(4)]),
    (layer_norm, [rand(4, 8), rand(8), rand(8)]),
    (attention, [rand(2, 4, 8), rand(2, 5, 8), rand(2, 5, 8)]),
    (fused_attention, [rand(2, 2, 4, 8), rand(2, 2, 4, 8), rand(2, 2, 4, 8)]),
    (embedding, [torch.randint(0, 10, (3, 4)), rand(10, 8)]),
    (split, [rand(4, 8)]),
    (mutation, [rand(4, 8), rand(8)]),
    (dropout, [rand(4, 8)]),
    (custom, [rand(4, 8)]),
    (max_pool, [rand(1, 2, 6, 6)]),
    (unknown, [rand(9, 8)]),
    (pooled, [rand(1, 3, 6, 6), rand(4, 3, 1, 1)]),
    (mixed_dtypes, [rand(4, 8) - 0.5]),
    (constants, [rand(4, 8)]),
    (returns_inputs, [rand(2), rand(3)]),
]
REPEATING = (pooled, mixed_dtypes)  # they call one operator on the same operands twice; such calls are merged
each_case = pytest.mark.parametrize(("function", "inputs"), CASES, ids=lambda v: getattr(v, "__name__", ""))


def unchanged(captured) -> tuple[TermGraph, list[int]]:
    """The captured program: opaque calls alone."""
    program, origin, number = TermGraph(), [], {}
    for old in captured.graph.reachable(captured.graph.roots):
        node = captured.graph.nodes[old]
        assert node.op in ("fx", "input")
        new = Node(node.op, node.attrs, tuple(number[c] for c in node.children))
        number[old] = program.add(new, captured.graph.types[old], captured.graph.constant[old])
        origin.append(old)
    program.roots = [number[root] for root in captured.graph.roots]
    return program, origin


def calls(graph: Graph) -> list[str]:
    return [str(node.target) for node in graph.nodes if node.op == "call_function"]


def run(module: GraphModule, inputs):
    """The outputs and the inputs after a run."""
    copies = [value.clone() for value in inputs]
    torch.manual_seed(0)
    return torch.utils._pytree.tree_leaves(Interpreter(module).run(*copies)), copies


def by_name(captured):
    """A capture, with the names of its FX nodes."""
    term = {node.name: t for node, t in captured.term.items()}
    leaves = {t: node.name for t, node in captured.leaves.items()}
    calls = {uid: (call.target, repr(call.args), call.origin.name) for uid, call in captured.calls.items()}
    return captured.graph.digest(), term, leaves, calls, captured.parts, [node.name for node in captured.pinned]


@each_case
def test_the_capture_of_a_copy(trace, function, inputs):
    """It is the capture of the graph, and says nothing of the graph's own nodes."""
    graph = trace(function, *inputs).graph
    captured = capture(graph)
    copy, copy_of = copied(graph)
    on_copy = captured.on_copy(copy, copy_of)
    assert by_name(on_copy) == by_name(captured) == by_name(capture(copy))
    before = str(graph)
    rebuild(on_copy, *unchanged(on_copy))
    assert str(graph) == before and on_copy.fx is copy


@each_case
@pytest.mark.parametrize("frozen", [False, True], ids=["free", "frozen"])
def test_round_trip(trace, function, inputs, frozen):
    module, again = trace(function, *inputs), trace(function, *inputs)
    placeholders = again.graph.find_nodes(op="placeholder")
    captured = capture(again.graph, set(placeholders[1:]) if frozen and function is not mutation else ())
    added = rebuild(captured, *unchanged(captured))
    again.recompile()
    if function in REPEATING:
        assert len(calls(again.graph)) < len(calls(module.graph))
    else:
        assert added == 0
        assert calls(again.graph) == calls(module.graph)
    expected, inputs_after = run(module, inputs)
    actual, inputs_after_again = run(again, inputs)
    assert len(expected) == len(actual)
    for a, b in zip(expected + inputs_after, actual + inputs_after_again, strict=True):
        assert torch.equal(a, b)


@each_case
def test_parts_have_the_type_of_what_they_mean(trace, function, inputs):
    graph = capture(trace(function, *inputs).graph).graph
    for opaque, meaning in graph.equal:
        assert graph.nodes[opaque].op == "fx"
        assert graph.types[opaque] == graph.types[meaning]


@each_case
def test_capture_is_deterministic(trace, function, inputs):
    digests = {capture(trace(function, *inputs).graph).graph.digest() for _ in range(2)}
    assert len(digests) == 1


def operators(captured):
    return {node.op for node in captured.graph.nodes}


def test_language_is_recognised(trace):
    def of(function):
        (inputs,) = [inputs for f, inputs in CASES if f is function]
        return operators(capture(trace(function, *inputs).graph))

    assert {"matmul", "add", "permute", "erf"} <= of(mlp)
    assert {"conv", "mul", "view"} <= of(conv_bn_relu)
    assert "sdpa" in of(fused_attention)
    assert {"embedding", "reduce"} <= of(embedding)
    assert "slice" in of(split)
    assert {"avg_pool", "index", "pad", "cat", "slice", "reduce", "conv"} <= of(pooled)
    assert "matmul" not in of(custom) and "fx" in of(custom)


def test_random_calls_are_pinned_and_equal_calls_merged(trace):
    captured = capture(trace(dropout, rand(4, 8)).graph)
    assert len(captured.pinned) == 3
    assert len({captured.term[node] for node in captured.pinned}) == 3
    twice_the_same = capture(trace(lambda x: (x.sin(), x.sin()), rand(4)).graph)
    assert len(twice_the_same.graph.roots) == 1


def test_equal_calls_become_one(trace):
    module = trace(lambda x: x.sin() * x.sin(), rand(4))
    captured = capture(module.graph)
    rebuild(captured, *unchanged(captured))
    assert calls(module.graph) == ["aten.sin.default", "aten.mul.Tensor"]


def test_recomputed_calls_are_not_merged(trace):
    graph = trace(lambda x: x.sin() * x.sin(), rand(4)).graph
    sines = graph.find_nodes(op="call_function", target=aten.sin.default)
    sines[0].meta["recompute"] = 1
    captured = capture(graph)
    assert captured.term[sines[0]] != captured.term[sines[1]]


def test_constant_nodes(trace):
    graph = trace(mlp, rand(4, 8), rand(8, 6), rand(6)).graph
    x, a, _ = graph.find_nodes(op="placeholder")
    constant = constant_nodes(graph, {a})
    assert a in constant and x not in constant
    assert [str(node.target) for node in constant if node is not a] == ["aten.permute.default"]


def test_constant_terms_are_cut_off(trace):
    module = trace(lambda x, a, b: x @ (a @ b).t(), rand(4, 8), rand(6, 5), rand(5, 8))
    placeholders = module.graph.find_nodes(op="placeholder")
    captured = capture(module.graph, set(placeholders[1:]))
    reachable = captured.graph.reachable(captured.graph.roots)
    assert [captured.graph.nodes[t].op for t in reachable].count("fx") == 1
    assert calls(module.graph).count("aten.mm.default") == 2


def test_tensor_type():
    assert tensor_type(torch.empty(2, 3, dtype=torch.bfloat16)) == TensorType((2, 3), "bfloat16")
    assert tensor_type(torch.empty(0, 3)) is None
    assert tensor_type(torch.eye(3).to_sparse()) is None
    assert tensor_type((torch.empty(2),)) is None
    assert tensor_type(3) is None
