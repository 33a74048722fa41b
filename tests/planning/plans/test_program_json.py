"""Programs as JSON and back: the same again, and refused when no search can have written them."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_eqsat.errors import PlanError
from torch_eqsat.ir.operators import infer_type
from torch_eqsat.ir.term import Node, TermGraph, attributes
from torch_eqsat.ir.types import TensorType
from torch_eqsat.planning.plans.program_json import check_fits, decode_program, encode_program

values = st.recursive(
    st.integers(-5, 5) | st.floats(allow_nan=False) | st.booleans() | st.text(max_size=5) | st.none(),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)
names = st.text("abcdef", min_size=1, max_size=4)
types = st.none() | st.builds(TensorType, st.lists(st.integers(1, 9), max_size=4).map(tuple), st.just("float32"))


@st.composite
def programs(draw):
    graph = TermGraph()
    for i in range(draw(st.integers(1, 8))):
        children = draw(st.lists(st.integers(0, len(graph) - 1), max_size=3)) if i and len(graph) else []
        attrs = attributes(**draw(st.dictionaries(names, values, max_size=3)), number=i)
        graph.add(Node("fx", attrs, tuple(children)), draw(types), draw(st.booleans()))
    graph.roots = draw(st.lists(st.integers(0, len(graph) - 1), max_size=3))
    return graph, draw(st.lists(st.integers(-1, 99), min_size=len(graph), max_size=len(graph)))


def through_json(graph, origin):
    return json.loads(json.dumps(encode_program(graph, origin)))


@settings(deadline=None, derandomize=True, database=None)
@given(programs())
def test_programs_survive_json(program):
    graph, origin = program
    again, origin_again = decode_program(through_json(graph, origin))
    assert origin_again == tuple(origin)
    assert again.digest() == graph.digest()
    assert again.nodes == graph.nodes


def fitting(program, captured):
    """A program from JSON values, that is one for the captured graph."""
    graph, origin = decode_program(program)
    check_fits(graph, origin, captured)
    return graph, origin


@pytest.fixture
def captured():
    """x @ w and its row sums, as captured."""
    graph = TermGraph()
    for name, shape in (("x0", (4, 3)), ("x1", (3, 5))):
        graph.add(Node("input", attributes(name=name, shape=shape, dtype="float32"), ()), TensorType(shape, "float32"),
                  False)  # fmt: skip
    graph.add(Node("fx", attributes(uid="mm", shape=(4, 5)), (0, 1)), TensorType((4, 5), "float32"), False)
    graph.roots = [2]
    return graph


@pytest.fixture
def program(captured):
    """The same as (wᵀ xᵀ)ᵀ, in JSON."""
    graph = TermGraph()
    for node, type_ in zip(captured.nodes[:2], captured.types[:2], strict=True):
        graph.add(node, type_, False)
    for op, attrs, children in (
        ("permute", {"dims": (1, 0)}, (0,)),
        ("permute", {"dims": (1, 0)}, (1,)),
        ("matmul", {}, (3, 2)),
        ("permute", {"dims": (1, 0)}, (4,)),
    ):
        graph.add(Node(op, attributes(**attrs), children), infer_type(op, attrs, [graph.types[c] for c in children]),
                  False)  # fmt: skip
    graph.roots = [5]
    return through_json(graph, [0, 1, -1, -1, -1, 2])


def test_a_program_of_the_graph_is_taken(program, captured):
    graph, origin = fitting(program, captured)
    assert graph.format().endswith("%5 = permute(%4) dims=(1, 0) : float32[4, 5]")
    assert origin == (0, 1, -1, -1, -1, 2)


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ("nodes 4 0", "matmull", "operator 'matmull', which is unknown"),
        ("nodes 4 0", "conv", "cannot be read"),
        ("nodes 4 0", "add", "do not fit"),
        ("nodes 4 2", [3], "has 1 operands, not 2"),
        ("nodes 4 2", [3, 4], "do not come before it"),
        ("nodes 4 2", [3, 9], "do not come before it"),
        ("nodes 4 2", [3, -1], "do not come before it"),
        ("nodes 4 2", [2, 3], "do not fit"),
        ("nodes 5 1 dims", [0, 1], "and not"),
        ("nodes 5 1 dims", [0, 0], "do not fit"),
        ("nodes 5 1 dims", None, "cannot be read"),
        ("nodes 5 1", [], "cannot be read"),
        ("nodes 3 2", [0], "not"),
        ("types 4 0", [5, 5], "and not"),
        ("types 4 1", "float99", "dtype 'float99'"),
        ("types 4", None, "not None"),
        ("roots", [6], "a root is none"),
        ("roots", [-1], "a root is none"),
        ("roots", [4], "outputs have other types"),
        ("roots", [5, 5], "outputs have other types"),
        ("origin 5", 3, "none of 3 terms"),
        ("origin 5", 1, "stands for a captured"),
        ("origin", [0], "cannot be read"),
        ("nodes 0 1 name", "x7", "is not in the graph"),
        ("nodes 0", ["fx", {"uid": "mm"}, [0]], "do not come before it"),
    ],
)
def test_what_no_search_wrote_is_refused(program, captured, place, value, reason):
    *path, last = place.split()
    target = program
    for step in path:
        target = target[int(step) if step.isdigit() else step]
    target[int(last) if last.isdigit() else last] = value
    with pytest.raises(PlanError, match=reason):
        fitting(program, captured)


def test_equal_terms_are_refused(program, captured):
    for name in ("nodes", "types", "constant", "origin"):
        program[name].append(program[name][5])
    with pytest.raises(PlanError, match="written twice"):
        fitting(program, captured)


def test_unsigned_numbers():
    """Whatever is captured may be moved by laws about views."""
    graph = TermGraph()
    x = TensorType((2, 3), "uint64")
    graph.add(Node("input", attributes(name="x", shape=x.shape, dtype=x.dtype), ()), x, False)
    graph.add(Node("permute", attributes(dims=(1, 0)), (0,)), TensorType((3, 2), "uint64"), False)
    graph.roots = [1]
    again, _ = decode_program(through_json(graph, [0, -1]))
    assert again.nodes == graph.nodes
