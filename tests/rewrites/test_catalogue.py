"""Every law of the catalogue, verified from its own declaration."""

import pkgutil
import random
from contextlib import suppress
from importlib import import_module

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_eqsat import rewrites
from torch_eqsat.egraph.egraph import EGraph
from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.laws.assumptions import EVERYTHING
from torch_eqsat.laws.example import build_example
from torch_eqsat.laws.law import EXACTNESS, collect
from torch_eqsat.laws.matcher import check_examples
from torch_eqsat.rewrites import FAMILIES, catalogue
from torch_eqsat.verification.hazards import IMPLIED, needed, undeclared
from torch_eqsat.verification.laws import check, check_near_misses, check_variant
from torch_eqsat.verification.variants import perturbed

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
    egraph = EGraph([law], granted=EVERYTHING)
    try:
        egraph.load(graph)
        assert egraph.apply([law]).fired
    finally:
        egraph.close()


def test_every_module_with_laws_is_a_family():
    modules = [import_module(f"{rewrites.__name__}.{found.name}") for found in pkgutil.iter_modules(rewrites.__path__)]
    assert {module.__name__.rpartition(".")[2] for module in modules if collect(module)} == set(FAMILIES)


def test_names_are_unique_and_tiers_known():
    assert len({law.name for law in LAWS}) == len(LAWS)
    assert {law.exactness for law in LAWS} <= set(EXACTNESS)


SEEDS, MORE_SEEDS = 2, 6
DECLARATIONS = {}
for _law in LAWS:
    DECLARATIONS.setdefault(_law.declaration, []).append(_law)


def hazards_of(law, seed):
    """What the law needs on its examples and on variants of them."""
    found = set()
    for example in law.examples:
        found |= needed(law, example, seed)
        with suppress(TypeMismatchError, IndexError, KeyError, ValueError, TypeError, RuntimeError):  # no term
            found |= needed(law, perturbed(example, random.Random(seed)), seed)
    return found


@pytest.mark.parametrize("declaration", DECLARATIONS)
def test_law_declares_what_it_assumes_and_nothing_else(declaration):
    """Tried on infinities, NaNs, masks, offsets, numbers that overflow and indices out of range; ``make laws`` draws
    more of them."""
    laws = DECLARATIONS[declaration]
    declared = {assumption.property for law in laws for assumption in law.assumptions}
    found, unneeded = set(), declared
    for seed in range(MORE_SEEDS):
        if seed >= SEEDS and not unneeded:
            break
        for law in laws:
            hazards = hazards_of(law, seed)
            missing = undeclared(law, hazards)
            assert not missing, f"{law.name} ({law.source}) holds only under {missing}"
            found |= hazards
        unneeded = {d for d in declared if d not in found and not IMPLIED.get(d, set()) & found}
    assert not unneeded, f"{declaration} declares {unneeded}, which it never needs"
