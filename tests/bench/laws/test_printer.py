"""Terms as text."""

import pytest

from bench.laws.printer import write_terms
from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.laws.example import build_example
from torch_eqsat.rewrites import catalogue

EXAMPLES = list(dict.fromkeys(law.examples[0] for law in {item.declaration: item for item in catalogue()}.values()))


def written(text):
    graph = TermGraph()
    root = build_example(text, Builder(GraphStore(graph))).id
    return write_terms(graph, [root]), graph.types[root], sorted(graph.nodes[n].op for n in graph.reachable([root]))


@pytest.mark.parametrize("example", EXAMPLES)
def test_what_is_written_denotes_the_same_term(example):
    first, type_, operators = written(example)
    again, type_again, operators_again = written(str(first))
    assert (str(again), type_again, operators_again) == (str(first), type_, operators)


def test_attributes_that_are_implied_are_left_out():
    text, _, _ = written("conv([1, 2, 5, 5], [3, 2, 3, 3], padding=[1, 1], groups=1, stride=[1, 1])")
    assert str(text) == "a := [1, 2, 5, 5], b := [3, 2, 3, 3], conv(a, b, padding=[1, 1])"


def test_numbers_indices_and_masks():
    text, _, _ = written("where(booleans(4, 3), embedding([9, 3], integers(4)), -0.5)")
    assert text.terms == ("where(m, embedding(a, i), -0.5)",)
    assert text.inputs == (("m", "booleans(4, 3)"), ("a", "[9, 3]"), ("i", "integers(4)"))


def test_names_do_not_run_out():
    text, _, _ = written(f"cat({', '.join(['[1]'] * 30)}, dim=0)")
    assert len({name for name, _ in text.inputs}) == 30
