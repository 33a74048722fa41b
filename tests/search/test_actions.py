"""The moves of a search."""

import json
from dataclasses import replace

from torch_eqsat.rewrites import catalogue
from torch_eqsat.search import actions
from torch_eqsat.search.actions import EVERYTHING, LawStatistics, actions_of, shipped_statistics, single_actions

LAWS = catalogue()


def test_batches_hold_no_expansive_law():
    some = [replace(law, expansive=index % 3 == 0) for index, law in enumerate(LAWS)]
    known = LawStatistics({}, (frozenset(law.name for law in some[:6]),))
    for action in actions_of(some, known):
        assert len(action.laws) == 1 or len({law.expansive for law in action.laws}) == 1
    everything = actions_of(some, known)[0]
    assert everything.name == EVERYTHING
    assert set(everything.laws) == {law for law in some if not law.expansive}


def test_every_law_is_in_one_single_action():
    singles = single_actions(LAWS)
    assert sorted(law.name for action in singles for law in action.laws) == sorted(law.name for law in LAWS)
    for action in singles:
        assert len({law.declaration for law in action.laws}) == 1


def test_no_action_twice():
    batches = [action.laws for action in actions_of(LAWS)]
    assert len(set(batches)) == len(batches)


def test_weights_come_from_statistics():
    known = LawStatistics({LAWS[0].name: 0.9}, ())
    weights = {action.name: action.weight for action in actions_of(LAWS, known)}
    assert weights[EVERYTHING] == 0.9
    assert min(weights.values()) == 0.1


def test_shipped_statistics_are_read(tmp_path, monkeypatch):
    path = tmp_path / "statistics.json"
    path.write_text(json.dumps({"laws": {"a": {"matched": 9, "useful": 3}}, "batches": [["a", "b"]]}))
    monkeypatch.setattr(actions, "STATISTICS", path)
    shipped_statistics.cache_clear()
    known = shipped_statistics()
    shipped_statistics.cache_clear()
    assert 0.3 < known.of("a") < 0.35
    assert known.of("unknown") == 0.1
    assert known.batches == (frozenset("ab"),)
