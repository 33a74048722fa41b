"""Every law of the catalogue, verified from its own declaration."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_eqsat.rewrites import catalogue

from torch_eqsat.egraph.session import Session
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.rules.builder import Builder, GraphStore
from torch_eqsat.rules.example import build_example
from torch_eqsat.rules.law import EXACTNESS
from torch_eqsat.rules.match import check_examples
from torch_eqsat.verification import check, check_near_misses, check_variant

LAWS = catalogue()
each_law = pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)


@each_law
def test_law_holds_on_its_examples_and_refuses_near_misses(law):
    assert law.examples, f"{law.name} ({law.source}) gives no example"
    check_examples(law)
    check_near_misses(law)
    for example in law.examples:
        for seed in range(3):
            assert check(law, example, seed)


@each_law
def test_law_holds_on_variants(law):
    @settings(max_examples=20, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(law.examples), st.integers(0, 1 << 40))
    def variants(example, seed):
        check_variant(law, example, random.Random(seed))

    variants()


@each_law
def test_law_fires_in_an_egraph(law):
    graph = TermGraph()
    graph.roots = [build_example(law.examples[0], Builder(GraphStore(graph))).id]
    session = Session([law])
    try:
        session.load(graph)
        assert session.apply([law]).fired
    finally:
        session.close()


def test_names_are_unique_and_tiers_known():
    assert len({law.name for law in LAWS}) == len(LAWS)
    assert {law.exactness for law in LAWS} <= set(EXACTNESS)
