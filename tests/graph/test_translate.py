"""What single calls mean, by value: what the language says of a call is what eager computes."""

import pytest
import torch
from torch.nn import functional

from torch_eqsat.graph.capture import capture
from torch_eqsat.verification.interpreter import evaluate

aten = torch.ops.aten
C, A, B = torch.randn(5), torch.randn(4, 3), torch.randn(3, 5)
BATCHES = torch.randn(2, 4, 5), torch.randn(2, 4, 3), torch.randn(2, 3, 5)
NUMBER = torch.tensor(2.5)
PRODUCTS = {
    "plain": lambda c, a, b: aten.addmm.default(c, a, b),
    "alpha": lambda c, a, b: aten.addmm.default(c, a, b, alpha=0.5),
    "beta": lambda c, a, b: aten.addmm.default(c, a, b, beta=-2),
    "both": lambda c, a, b: aten.addmm.default(c, a, b, beta=0.25, alpha=3),
    "no addend": lambda c, a, b: aten.addmm.default(c, a, b, beta=0),
    "no addend, scaled": lambda c, a, b: aten.addmm.default(c, a, b, beta=0.0, alpha=0.5),
    "by name": lambda c, a, b: aten.addmm.default(self=c, mat1=a, mat2=b, alpha=0.5),
    "partly by name": lambda c, a, b: aten.addmm.default(c, a, mat2=b, beta=2),
}
BATCHED = {
    "plain": lambda c, a, b: aten.baddbmm.default(c, a, b),
    "scaled": lambda c, a, b: aten.baddbmm.default(c, a, b, beta=1, alpha=0.125),
    "no addend": lambda c, a, b: aten.baddbmm.default(c, a, b, beta=0, alpha=0.125),
    "by name": lambda c, a, b: aten.baddbmm.default(c, batch1=a, batch2=b, beta=0.5, alpha=0.125),
}
REDUCTIONS = {
    "sum": lambda x: aten.sum.dim_IntList(x, [-1]),
    "sum of all": lambda x: aten.sum.default(x),
    "sum, kept": lambda x: aten.sum.dim_IntList(x, [0], True),
    "sum by name": lambda x: aten.sum.dim_IntList(x, dim=[0], keepdim=True),
    "mean": lambda x: aten.mean.dim(x, [0]),
    "amax": lambda x: aten.amax.default(x, [0]),
    "amin": lambda x: aten.amin.default(x, [-1], True),
    "mean of var_mean": lambda x: aten.var_mean.correction(x, [0], correction=0)[1],
    "cumsum": lambda x: aten.cumsum.default(x, 0),
}


def meaning(trace, function, *inputs):
    """The value of what the last call of ``function`` means; None if it is opaque."""
    captured = capture(trace(function, *inputs).graph)
    graph, (root,) = captured.graph, captured.graph.roots
    meant = dict(graph.equal)
    if root not in meant:
        return None
    names = {node.name: term for term, node in captured.leaves.items()}
    values = dict(zip([names[n.name] for n in captured.fx.find_nodes(op="placeholder")], inputs, strict=True))
    dtype = str(inputs[0].dtype).removeprefix("torch.")
    return evaluate(graph, values, dtype, [meant[root]])[meant[root]]


MIXED = {
    "sum": lambda x, y: x + y,
    "difference": lambda x, y: y - x,
    "product": lambda x, y: x * y,
    "quotient": lambda x, y: y / (x + 3),
    "maximum": torch.maximum,
    "hypotenuse": torch.hypot,
    "choice": lambda x, y: torch.where(x > 0, x, y),
}


@pytest.mark.parametrize("dtypes", [(torch.bfloat16, torch.float32), (torch.float16, torch.float64)])
@pytest.mark.parametrize("name", MIXED)
def test_arithmetic_of_several_dtypes_converts_first(trace, name, dtypes):
    x, y = torch.randn(4, 3).to(dtypes[0]), torch.randn(3).to(dtypes[1])
    captured = capture(trace(MIXED[name], x, y).graph)
    (root,) = captured.graph.roots
    meant = dict(captured.graph.equal)[root]
    assert captured.graph.nodes[meant].op != "pointwise"
    assert captured.graph.types[meant].dtype == str(dtypes[1]).removeprefix("torch.")
    assert any(node.op == "convert" for node in captured.graph.nodes)


def check_product(trace, function, inputs, dtype):
    inputs = [x.to(dtype) for x in inputs]
    meant, expected = meaning(trace, function, *inputs), function(*inputs)
    assert meant is not None and meant.dtype == expected.dtype
    exact = function(*(x.double() for x in inputs))
    ulps = 16 * torch.finfo(dtype).eps * exact.abs().max()
    torch.testing.assert_close(meant.double(), exact, rtol=0, atol=float(ulps))


each_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])


@each_dtype
@pytest.mark.parametrize("spelling", PRODUCTS)
def test_products_with_an_addend(trace, spelling, dtype):
    check_product(trace, PRODUCTS[spelling], (C, A, B), dtype)


@each_dtype
@pytest.mark.parametrize("spelling", BATCHED)
def test_batched_products_with_an_addend(trace, spelling, dtype):
    check_product(trace, BATCHED[spelling], BATCHES, dtype)


@pytest.mark.parametrize("function", [PRODUCTS["no addend"], PRODUCTS["no addend, scaled"]])
def test_an_addend_times_zero_is_not_read(trace, function):
    inputs = torch.full((5,), torch.nan), A, B
    meant = meaning(trace, function, *inputs)
    assert torch.isfinite(meant).all()
    torch.testing.assert_close(meant, function(*inputs))


@pytest.mark.parametrize(
    "function",
    [
        lambda c, a, b: aten.addmm.default(c, a, b, alpha=0),  # what is NaN in a product is not read by all kernels
        lambda c, a, b: aten.addmm.default(c, a, b, alpha=float("inf")),
        lambda c, a, b: aten.addmm.default(c, a, b, beta=float("nan")),
    ],
)
def test_odd_factors_are_opaque(trace, function):
    assert meaning(trace, function, C, A, B) is None


def test_products_of_integers_are_opaque(trace):
    inputs = (
        torch.ones(5, dtype=torch.int64),
        torch.ones(4, 3, dtype=torch.int64),
        torch.ones(3, 5, dtype=torch.int64),
    )
    assert meaning(trace, PRODUCTS["both"], *inputs) is None


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_of_a_number(trace, name):
    """A number has no axis, but may be reduced along its first and its last."""
    meant = meaning(trace, REDUCTIONS[name], NUMBER)
    assert meant is None or torch.equal(meant, REDUCTIONS[name](NUMBER))
    assert meant is not None or name == "cumsum"


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_of_a_vector(trace, name):
    x = torch.tensor([1.0, 2.0, 4.0])
    torch.testing.assert_close(meaning(trace, REDUCTIONS[name], x), REDUCTIONS[name](x))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.softmax(0),
        lambda x: x.log_softmax(-1),
        lambda x: x.logsumexp(0),
        lambda x: torch.var_mean(x, 0, correction=0),
        lambda x: torch.std(x, -1),
        lambda x: x.norm(dim=0),
        lambda x: x.cumsum(0),
        lambda x: x.flip(0),
        lambda x: x.prod(-1),
        lambda x: x.max(0),
    ],
)
def test_functions_of_a_number_are_captured(trace, function):
    module = trace(function, NUMBER)
    captured = capture(module.graph)
    assert len(captured.graph.roots) >= 1
    for opaque, meant in captured.graph.equal:
        assert captured.graph.types[opaque] == captured.graph.types[meant]


def test_arithmetic_errors_of_a_translation_make_a_call_opaque(trace, monkeypatch):
    def divides(*_):
        return 1 // 0

    monkeypatch.setitem(capture.__globals__["TRANSLATIONS"], aten.sum.default, divides)
    assert meaning(trace, lambda x: aten.sum.default(x), A) is None


def test_operators_are_translated_as_they_mean(trace):
    """Each call is one operator of the language (and views), which computes the same."""
    images, table = torch.rand(2, 4, 6, 6), torch.rand(5, 3)
    calls = {
        "conv_transpose": (lambda x: functional.conv_transpose2d(x, torch.ones(4, 3, 2, 2), stride=2), images),
        "max_pool": (lambda x: functional.max_pool2d(x, 2), images),
        "clamp": (lambda x: x.clamp(0.2, 0.7), images),
        "cumsum": (lambda x: x.cumsum(-1), images),
        "flip": (lambda x: x.flip(1), images),
        "diagonal": (lambda x: torch.diagonal(x, dim1=-2, dim2=-1), images),
        "div": (lambda x: x / (x + 1), images),
        "maximum": (lambda x: torch.maximum(x, x * 2), images),
        "hypot": (lambda x: torch.hypot(x, x * 2), images),
        "where": (lambda x: torch.where(x > 0.5, x, -x), images),
        "embedding_bag": (lambda w: functional.embedding_bag(torch.tensor([[0, 1], [4, 2]]), w, mode="sum"), table),
    }
    for name, (function, value) in calls.items():
        graph = capture(trace(function, value).graph).graph
        assert name in {node.op for node in graph.nodes}, name


def test_calls_outside_of_the_language_stay_opaque(trace):
    images, table = torch.rand(2, 4, 6, 6), torch.rand(5, 3)
    calls = {
        "conv_transpose": (
            lambda x: functional.conv_transpose2d(x, torch.ones(4, 3, 2, 2), stride=2, output_padding=1),
            images,
        ),
        "diagonal": (lambda x: torch.diagonal(x, 1, dim1=-2, dim2=-1), images),
        "cumsum": (lambda x: x.cumsum(-1, dtype=torch.float64), images),
        "embedding_bag": (
            lambda w: functional.embedding_bag(torch.tensor([[0, 1]]), w, mode="sum", padding_idx=0),
            table,
        ),
        "max_pool": (lambda x: functional.max_pool2d(x, 2, dilation=2), images),
        "pad": (lambda x: functional.pad(x, (1, 1), value=-0.0), images),
    }
    for name, (function, value) in calls.items():
        graph = capture(trace(function, value).graph).graph
        assert name not in {node.op for node in graph.nodes}, name
