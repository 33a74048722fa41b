"""Every law of the catalogue, verified from its own declaration."""

import pytest
from torch_eqsat.rewrites import catalogue

from torch_eqsat.graph.verify import verify_example
from torch_eqsat.rules.law import EXACTNESS

LAWS = catalogue()


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_law_fires_and_holds(law):
    assert law.examples, f"{law.name} ({law.source}) gives no example"
    for example in law.examples:
        for seed in range(3):
            result = verify_example(law, example, seed)
            assert result.fired, f"{law.name} ({law.source}) does not fire on {example}"
            assert not result.disagreement, f"{law.name} ({law.source}) on {example}: {result.disagreement}"


@pytest.mark.parametrize("law", [law for law in LAWS if law.refused], ids=lambda law: law.name)
def test_law_refuses_near_misses(law):
    for near_miss in law.refused:
        assert not verify_example(law, near_miss).fired, f"{law.name} ({law.source}) fires on {near_miss}"


def test_names_are_unique_and_tiers_known():
    assert len({law.name for law in LAWS}) == len(LAWS)
    assert {law.exactness for law in LAWS} <= set(EXACTNESS)
