"""Example terms."""

import pytest

from torch_eqsat.errors import LawError
from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.laws.example import build_example


def test_example():
    graph = TermGraph()
    root = build_example("add(matmul(x := [2, 3], [3, 2]), mul([2], 0.5))", Builder(GraphStore(graph)))
    assert root.shape == (2, 2)
    assert [node.op for node in graph.nodes] == ["input", "input", "matmul", "input", "scalar", "mul", "add"]
    assert build_example("embedding([9, 4], integers(2, 5))", Builder(GraphStore(TermGraph()))).shape == (2, 5, 4)


def test_shapes_of_named_terms():
    root = build_example("matmul(x := [2, 3], [x.shape[1], 4])", Builder(GraphStore(TermGraph())))
    assert root.shape == (2, 4)


def test_malformed_example():
    with pytest.raises(LawError, match="cannot read"):
        build_example("add([2], -[2])", Builder(GraphStore(TermGraph())))
