"""Types of operators: against torch where both say something, and what is refused."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.graph.emitter import Evaluator
from torch_eqsat.graph.lowering import LOWERINGS, lower
from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.operators import OPERATORS, infer_type
from torch_eqsat.ir.term import Node, TermGraph, attributes
from torch_eqsat.ir.types import TensorType
from torch_eqsat.verification.interpreter import evaluate

relaxed = settings(max_examples=50, deadline=None, derandomize=True, database=None)
sizes = st.integers(1, 5)
shapes = st.lists(sizes, min_size=1, max_size=4).map(tuple)


def f32(*shape: int) -> TensorType:
    return TensorType(shape, "float32")


def agrees(op, types, **attrs) -> TensorType:
    """The type that both inference and torch give."""
    node = Node(op, attributes(**attrs), tuple(range(len(types))))
    inferred = infer_type(op, dict(node.attrs), types)
    args = [torch.empty(t.shape, dtype=getattr(torch, t.dtype), device="meta") for t in types]
    value = lower(Evaluator(), node, args, types)
    assert tuple(value.shape) == inferred.shape
    assert str(value.dtype) == f"torch.{inferred.dtype}"
    return inferred


@relaxed
@given(st.lists(sizes, max_size=1), sizes, sizes, sizes)
def test_matmul(batch, n, k, m):
    assert agrees("matmul", [f32(*batch, n, k), f32(*batch, k, m)]).shape == (*batch, n, m)


@relaxed
@given(st.lists(sizes, min_size=1, max_size=3), sizes, sizes)
def test_rows_of_any_rank_by_one_matrix(leading, k, m):
    assert agrees("matmul", [f32(*leading, k), f32(k, m)]).shape == (*leading, m)


@relaxed
@given(st.data())
def test_conv(data):
    draw = data.draw
    spatial, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))

    def each(strategy):
        return tuple(draw(st.lists(strategy, min_size=spatial, max_size=spatial)))

    kernel, dilation, padding = each(st.integers(1, 3)), each(st.integers(1, 2)), each(st.integers(0, 2))
    image = tuple(d * (k - 1) + 1 + draw(st.integers(0, 4)) for d, k in zip(dilation, kernel, strict=True))
    inside = draw(st.integers(1, 3))
    types = [f32(draw(sizes), inside * groups, *image), f32(draw(st.integers(1, 3)) * groups, inside, *kernel)]
    agrees("conv", types, stride=each(st.integers(1, 3)), padding=padding, dilation=dilation, groups=groups)


@relaxed
@given(st.data(), shapes)
def test_views(data, shape):
    draw, x = data.draw, f32(*shape)
    agrees("permute", [x], dims=draw(st.permutations(range(x.rank))))
    agrees("view", [x], shape=draw(st.permutations(shape)))
    agrees("view", [x], shape=(x.numel,))
    flat = tuple(draw(st.sampled_from([1, n])) for n in shape)
    agrees("expand", [f32(*flat)], shape=(*draw(st.lists(sizes, max_size=2)), *shape))


@relaxed
@given(st.data(), shapes)
def test_slice_cat_pad(data, shape):
    draw, x = data.draw, f32(*shape)
    dim = draw(st.integers(0, x.rank - 1))
    start = draw(st.integers(0, shape[dim] - 1))
    stop = draw(st.integers(start + 1, shape[dim]))
    part = agrees("slice", [x], dim=dim, start=start, stop=stop)
    agrees("cat", [x, part, x], dim=dim)
    pads = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=x.rank, max_size=x.rank))
    agrees("pad", [x], pads=pads)


@relaxed
@given(st.data(), shapes, st.sampled_from(["sum", "mean", "amax", "amin", "var0.0", "var1.0"]))
def test_reduce(data, shape, kind):
    dims = data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
    agrees("reduce", [f32(*shape)], kind=kind, dims=sorted(dims))


@relaxed
@given(st.data(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))
def test_filter_bank(data, taps, step, dilation):
    dim, into = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))
    shape = [data.draw(st.integers(1, 3)) for _ in range(3)]
    shape[dim] += dilation * (taps - 1)
    row = st.tuples(*[st.sampled_from([-2.0, 0.0, 0.5, 1.0])] * taps).filter(any)
    rows = data.draw(st.lists(row, min_size=1, max_size=3))
    agrees("filter_bank", [f32(*shape)], dim=dim, into=into, step=step, dilation=dilation, coefficients=rows)


def test_a_filter_bank_by_hand():
    """[x₀ + 2 x₁, x₂ + 2 x₃] and [x₁, x₃], one after the other."""
    x = torch.arange(5.0)
    graph = TermGraph()
    t = Builder(GraphStore(graph))
    y = t.filter_bank(t.input((5,)), [[1.0, 2.0], [0.0, 1.0]], dim=0, into=0, step=2)
    assert evaluate(graph, {0: x}, "float32")[y.id].tolist() == [2.0, 8.0, 1.0, 3.0]


@relaxed
@given(st.data())
def test_avg_pool(data):
    draw = data.draw
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    kernel, stride = draw(pair), draw(pair)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    image = tuple(k + draw(st.integers(0, 4)) for k in kernel)
    window = {"kernel": kernel, "stride": stride, "padding": padding, "ceil_mode": False}
    agrees("avg_pool", [f32(2, 3, *image)], **window, count_include_pad=draw(st.booleans()), divisor=None)


@relaxed
@given(st.data(), shapes)
def test_arithmetic(data, shape):
    other = tuple(data.draw(st.sampled_from([1, n])) for n in shape[data.draw(st.integers(0, len(shape))) :])
    for op in ("add", "mul", "hypot"):
        assert agrees(op, [f32(*shape), f32(*other)]).shape == shape
        assert agrees(op, [f32(*other), f32(*shape)]).shape == shape


def test_clamp_of_integers():
    for low, high in [(0, 3), (0.0, 3.0), (None, 3.0)]:
        assert agrees("clamp", [TensorType((4,), "int64")], low=low, high=high).dtype == "int64"
    assert agrees("clamp", [f32(4)], low=0, high=3).dtype == "float32"


def test_sdpa_index_embedding():
    agrees("sdpa", [f32(2, 3, 4, 8), f32(2, 3, 5, 8), f32(2, 3, 5, 8)], causal=False, scale=0.5)
    index = TensorType((6, 7), "int64")
    agrees("embedding", [f32(10, 4), index])
    agrees("index", [f32(3, 5), TensorType((6,), "int64")], first=1)
    agrees("index", [f32(3, 5, 5), TensorType((6, 1), "int64"), TensorType((7,), "int64")], first=1)
    agrees("index", [f32(3, 5, 4), TensorType((6,), "int64")], first=1)
    agrees("index", [f32(3, 5, 4), TensorType((6,), "int64"), TensorType((6,), "int64")], first=0)
    agrees("index", [f32(3, 5, 4), TensorType((2, 6), "int64")], first=0)


def test_factories():
    assert infer_type("scalar", {"shape": (), "dtype": "float32", "value": 1.0}, []) == f32()
    assert agrees("dirac", [], shape=(4, 2, 3, 3), groups=2, dtype="float32") == f32(4, 2, 3, 3)
    assert infer_type("pointwise", {"uid": "gt", "dtype": "bool"}, [f32(3, 1), f32(4)]) == TensorType((3, 4), "bool")


GEOMETRY = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
POOL = {"kernel": (2, 2), "stride": (1, 1), "padding": (0, 0), "ceil_mode": False}
FILTERS = {"dim": 0, "into": 0, "step": 1, "dilation": 1}
REFUSED = [
    ("add", {}, [f32(2)]),
    ("add", {}, [f32(2), f32(3)]),
    ("mul", {}, [f32(2), TensorType((2,), "float64")]),
    ("pointwise", {"dtype": "bool"}, [f32(2), f32(3)]),
    ("filter_bank", {**FILTERS, "coefficients": ((1.0, 1.0), (1.0,))}, [f32(4)]),
    ("filter_bank", {**FILTERS, "coefficients": ((1.0, 1.0, 1.0),)}, [f32(2)]),
    ("filter_bank", {**FILTERS, "coefficients": ((1.0,),)}, [TensorType((2,), "int64")]),
    ("filter_bank", {**FILTERS, "coefficients": ((1.0, 1.0), (0.0, 0.0))}, [f32(4)]),
    ("filter_bank", {**FILTERS, "dim": 1, "coefficients": ((1.0,),)}, [f32(2)]),
    ("filter_bank", {**FILTERS, "step": 0, "coefficients": ((1.0,),)}, [f32(2)]),
    ("matmul", {}, [f32(2, 3), f32(4, 5)]),
    ("matmul", {}, [f32(2), f32(2)]),
    ("matmul", {}, [f32(1, 2, 3), f32(2, 3, 4)]),
    ("matmul", {}, [f32(1, 2, 3), f32(2, 4)]),
    ("matmul", {}, [f32(2, 3), f32(1, 3, 4)]),
    ("matmul", {}, [f32(1, 1, 2, 3), f32(1, 3, 4)]),
    ("matmul", {}, [f32(2, 3), TensorType((3, 4), "float16")]),
    ("conv", GEOMETRY, [f32(1, 3, 5, 5), f32(4, 2, 3, 3)]),
    ("conv", GEOMETRY, [f32(1, 2, 5, 5), f32(4, 2, 6, 3)]),
    ("conv", GEOMETRY, [f32(1, 2, 5), f32(4, 2, 3)]),
    ("conv", {**GEOMETRY, "groups": 2}, [f32(1, 2, 5, 5), f32(3, 1, 3, 3)]),
    ("conv", GEOMETRY, [f32(1, 2, 5, 5), TensorType((4, 2, 3, 3), "float64")]),
    ("sdpa", {}, [f32(2, 3, 4, 8), f32(2, 3, 5, 8), f32(2, 3, 6, 8)]),
    ("sdpa", {}, [f32(2, 3, 4, 8), f32(2, 3, 5, 7), f32(2, 3, 5, 7)]),
    ("sdpa", {}, [f32(3, 4, 8), f32(3, 5, 8), f32(3, 5, 8)]),
    ("sdpa", {}, [f32(2, 3, 4, 8), f32(2, 3, 5, 8), TensorType((2, 3, 5, 8), "float64")]),
    ("permute", {"dims": (0, 0)}, [f32(2, 3)]),
    ("permute", {"dims": (0,)}, [f32(2, 3)]),
    ("view", {"shape": (5,)}, [f32(2, 3)]),
    ("expand", {"shape": (2, 4)}, [f32(2, 3)]),
    ("expand", {"shape": (3,)}, [f32(2, 3)]),
    ("slice", {"dim": 0, "start": 1, "stop": 1}, [f32(2, 3)]),
    ("slice", {"dim": 0, "start": 0, "stop": 3}, [f32(2, 3)]),
    ("slice", {"dim": 2, "start": 0, "stop": 1}, [f32(2, 3)]),
    ("cat", {"dim": 0}, [f32(2, 3), f32(2, 4)]),
    ("cat", {"dim": 0}, [f32(2, 3), f32(3)]),
    ("reduce", {"kind": "sum", "dims": (2,)}, [f32(2, 3)]),
    ("avg_pool", POOL, [f32(2, 3, 4)]),
    ("avg_pool", POOL, [f32(1, 1, 1, 4)]),
    ("avg_pool", {**POOL, "ceil_mode": True}, [f32(1, 1, 4, 4)]),
    ("index", {"first": 1}, [f32(2, 3), TensorType((2,), "int64"), TensorType((2,), "int64")]),
    ("embedding", {}, [f32(2, 3, 4), TensorType((2,), "int64")]),
]


@pytest.mark.parametrize(("op", "attrs", "types"), REFUSED)
def test_refused(op, attrs, types):
    with pytest.raises(TypeMismatchError):
        infer_type(op, attrs, types)


# Calls that a law may well attempt: they must end its attempt, not the search.
@pytest.mark.parametrize(
    ("op", "attrs", "types"),
    [
        ("pad", {"pads": ((0, 1),)}, [f32(2, 3)]),
        ("cat", {"dim": 2}, [f32(2, 3), f32(2, 3)]),
        ("conv", {**GEOMETRY, "padding": (0,)}, [f32(1, 2, 5, 5), f32(4, 2, 3, 3)]),
    ],
)
def test_misfitting_attributes_are_refused(op, attrs, types):
    with pytest.raises(TypeMismatchError):
        infer_type(op, attrs, types)


def test_every_operator_is_known_to_lowering():
    captured_only = {"input", "fx", "pointwise", "scalar"}
    assert set(LOWERINGS) | captured_only == set(OPERATORS)
    assert all(math.isfinite(op.arity) for op in OPERATORS.values() if op.arity is not None)
