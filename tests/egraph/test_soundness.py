"""All laws at once on random terms: whatever they put into one e-class has one value."""

import os
import random

import pytest

from bench.laws.fuzz import Fuzzer
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.laws.law import law
from torch_eqsat.rewrites import catalogue

FIRST = int(os.environ.get("FUZZ_SEED", "0"))
RUNS = 1000
BLOCKS = 10
pytestmark = pytest.mark.filterwarnings("ignore:var_mean")  # of a single element


@pytest.fixture(scope="module")
def fuzzer():
    return Fuzzer(catalogue())


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_terms(fuzzer, block):
    size = RUNS // BLOCKS
    for seed in range(FIRST + block * size, FIRST + (block + 1) * size):
        run = fuzzer.run(seed)
        assert not run.problem, f"{run.problem}\n  again: python -m bench.laws.fuzz --seed {seed} --runs 1"


def test_random_terms_are_of_all_operators(fuzzer):
    """Whichever process runs the blocks above."""
    seen: set[str] = set()
    for seed in range(FIRST, FIRST + RUNS):
        graph, _ = fuzzer.grown(random.Random(seed))
        seen.update(node.op for node in graph.nodes)
    assert seen == set(OPERATORS) - {"fx"}


def wrong_sum(t, c, f, x):
    """cumsum(flip(x)) = flip(cumsum(x)), which is wrong along one axis"""
    return t.like(f, t.like(c, x))


def failing_sum(t, c, f, x):
    """cumsum(flip(x)) = ?"""
    return t.like(f, x[0])


@pytest.mark.parametrize(
    ("function", "problem"), [(wrong_sum, "made by wrong_sum: off by"), (failing_sum, "raised KeyError: 0")]
)
def test_wrong_law_is_found_and_named(function, problem):
    wrong = law("c := cumsum(f := flip(x))", example="cumsum(flip([3, 4], dim=0), dim=0)")(function)
    fuzzer = Fuzzer([*(item for item in catalogue() if item.family == "layout"), *wrong])
    found = next(run for run in map(fuzzer.run, range(500)) if run.problem)
    assert problem in found.problem
    assert f"laws: {function.__name__}\n" in found.problem
    assert fuzzer.run(found.seed).problem == found.problem
