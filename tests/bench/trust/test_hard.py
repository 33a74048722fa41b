"""Which differences on hard inputs count."""

import pytest

from bench.trust.hard import rounds_worse
from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.laws.example import build_example
from torch_eqsat.verification.hazards import needed_between


def sides(text: str) -> tuple[TermGraph, int, int]:
    """The two terms that an example adds."""
    graph = TermGraph()
    both = build_example(text, Builder(GraphStore(graph)))
    return graph, *graph.nodes[both.id].children


def test_a_cancellation_shows_on_most_draws():
    graph, old, new = sides(
        "add(matmul(add(x := [4, 6], mul(m := [4, 6], -1)), w := [6, 2]), add(matmul(x, w), mul(matmul(m, w), -1)))"
    )
    assert rounds_worse(graph, old, new, seed=0) == "needs no_cancellation"


@pytest.mark.parametrize("seed", [140, 143])
def test_a_result_that_rounded_better_by_chance_does_not(seed):
    mean = "dims=[0], kind='mean'"
    old = f"matmul(a := [2, 1], reduce(cat(matmul(b := [4, 6], c := [6, 2]), matmul(d := [4, 6], c), dim=0), {mean}))"
    new = f"matmul(matmul(a, reduce(cat(b, d, dim=0), {mean})), c)"
    assert not rounds_worse(*sides(f"add({old}, {new})"), seed)


def test_an_index_read_off_infinities_changes_in_its_own_row_only():
    pick = "dim=1, item=1, k=1, largest=False"
    old = f"topk(mul(matmul(x := [2, 3], w := [3, 4]), s := [2, 1]), {pick})"
    graph, one, other = sides(f"add({old}, topk(matmul(mul(x, s), w), {pick}))")
    assert needed_between(graph, one, other, 0) <= {"finite"}
