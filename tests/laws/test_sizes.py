"""The sizes that a law declares leave out only what its function refuses."""

import os
import random
import subprocess
import sys
from dataclasses import replace

import pytest

from bench.laws.fuzz import Fuzzer
from torch_eqsat.egraph.egraph import EGraph
from torch_eqsat.errors import LawError
from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.laws.assumptions import EVERYTHING
from torch_eqsat.laws.example import build_example
from torch_eqsat.laws.law import law
from torch_eqsat.laws.matcher import matches
from torch_eqsat.laws.pattern import parse_pattern
from torch_eqsat.laws.sizes import ANY, read_sizes
from torch_eqsat.rewrites import catalogue

SIZED = [item for item in catalogue() if item.sizes != ANY]


def grown(laws, graph, rounds=3):
    """What the laws that fired were, and the content of the e-graph after them."""
    egraph, fired = EGraph(laws, 2_000, EVERYTHING), set()
    egraph.load(graph)
    for _ in range(rounds):
        fired |= egraph.apply(laws).fired.keys()
    content = egraph.content
    egraph.close()
    return fired, content


def test_no_match_that_a_law_accepts_is_left_out():
    fuzzer, fired = Fuzzer(SIZED), set()
    anyway = [replace(item, sizes=ANY) for item in SIZED]
    for seed in range(150):
        graph, _ = fuzzer.grown(random.Random(seed))
        with_sizes, without = grown(SIZED, graph), grown(anyway, graph)
        assert with_sizes == without, f"seed {seed}"
        fired |= with_sizes[0]
    assert {item.declaration for item in SIZED if item.name in fired} == {item.declaration for item in SIZED}


def addends_swap(t, x, c):
    """x + c = (x + c) + 0"""
    return t.add(t.add(x, c), t.scalar(0.0))


def test_what_a_declaration_leaves_out_is_not_matched():
    graph = TermGraph()
    graph.roots = [build_example("add([4, 3], [3])", Builder(GraphStore(graph))).id]
    (right,) = law("add(x, c)", smaller="c", example="add([4, 3], [3])")(addends_swap)
    (wrong,) = law("add(x, c)", whole="x c", example="add([4, 3], [3])")(addends_swap)
    assert grown([right], graph, 1)[0] and not grown([wrong], graph, 1)[0]
    assert list(matches(right, graph)) and not list(matches(wrong, graph))


def test_masks():
    call = parse_pattern("add(x, mul(y, c))")
    sizes = read_sizes("c", "", call)
    assert sizes.mask(call) is None  # nothing is said of the product
    assert sizes.mask(call.children[1]) == 0b10
    assert read_sizes("x", "", call).mask(call) == 0b01
    assert read_sizes("", "y c", call).mask(call.children[1]) == 0b00


@pytest.mark.parametrize(
    ("smaller", "whole", "problem"),
    [
        ("d", "", "the size of 'd' says nothing"),
        ("", "x", "the size of 'x' says nothing"),  # of the other operand nothing is said
        ("c", "c", "'c' is named as smaller and as whole"),
    ],
)
def test_what_says_nothing_is_refused(smaller, whole, problem):
    with pytest.raises(LawError, match=problem):
        read_sizes(smaller, whole, parse_pattern("add(x, mul(y, c))"))


def test_fingerprints_are_equal_in_every_process():
    code = (
        "from torch_eqsat.laws.fingerprint import fingerprint\n"
        "from torch_eqsat.rewrites import elementwise\n"
        "print(fingerprint(elementwise.small_factors_gather))"
    )
    environments = [{**os.environ, "PYTHONHASHSEED": seed} for seed in ("1", "2")]
    runs = [subprocess.run([sys.executable, "-c", code], env=e, capture_output=True, check=True) for e in environments]
    assert runs[0].stdout == runs[1].stdout != b""
