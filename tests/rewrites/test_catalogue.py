"""Every law of the catalogue, verified from its own declaration."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_eqsat.rewrites import catalogue

from torch_eqsat.egraph.session import Session
from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.hazards import IMPLIED, needed, undeclared
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.rules.assumptions import EVERYTHING
from torch_eqsat.rules.builder import Builder, GraphStore
from torch_eqsat.rules.example import build_example
from torch_eqsat.rules.law import EXACTNESS
from torch_eqsat.rules.match import check_examples
from torch_eqsat.rules.perturb import perturbed
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
    session = Session([law], granted=EVERYTHING)
    try:
        session.load(graph)
        assert session.apply([law]).fired
    finally:
        session.close()


def test_names_are_unique_and_tiers_known():
    assert len({law.name for law in LAWS}) == len(LAWS)
    assert {law.exactness for law in LAWS} <= set(EXACTNESS)


def hazards_of(law):
    """What the law needs on its examples and on variants of them."""
    found = set()
    for seed in range(6):
        for example in law.examples:
            found |= needed(law, example, seed)
            try:
                found |= needed(law, perturbed(example, random.Random(seed)), seed)
            except (TypeMismatchError, IndexError, KeyError, ValueError, TypeError, RuntimeError):
                continue  # no term
    return found


DECLARATIONS = {}
for _law in LAWS:
    DECLARATIONS.setdefault(_law.declaration, []).append(_law)


@pytest.mark.parametrize("declaration", DECLARATIONS)
def test_law_declares_what_it_assumes_and_nothing_else(declaration):
    """Tried on infinities, NaNs, masks, offsets, numbers that overflow and indices out of range."""
    declared, found = set(), set()
    for law in DECLARATIONS[declaration]:
        hazards = hazards_of(law)
        assert not undeclared(law, hazards), f"{law.name} ({law.source}) holds only under {undeclared(law, hazards)}"
        declared |= {assumption.property for assumption in law.assumptions}
        found |= hazards
    unneeded = {d for d in declared if d not in found and not IMPLIED.get(d, set()) & found}
    assert not unneeded, f"{declaration} declares {unneeded}, which it never needs"
