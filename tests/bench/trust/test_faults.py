"""The benchmark of faults: its edits change plans, its table counts, its scenarios are told apart."""

import json
import random
from collections import Counter

import pytest

from bench.trust.fault_scenarios import SCENARIOS, Scenario, problems
from bench.trust.fault_subjects import SUBJECTS, Planner
from bench.trust.faults import fuzz_table
from bench.trust.fuzz_plans import NAMES
from bench.trust.plan_edits import EDITS, damaged
from torch_eqsat.options import Options

PLAN = {
    "base_ms": 1.5, "best_ms": 0.1, "regions": [],
    "program": {
        "nodes": [["input", {"name": "x0", "shape": [4, 3]}, []], ["input", {"name": "x1", "shape": [3, 4]}, []],
                  ["matmul", {}, [0, 1]], ["permute", {"dims": [1, 0]}, [2]]],
        "types": [[[4, 3], "float32"], [[3, 4], "float32"], [[4, 4], "float32"], [[4, 4], "float32"]],
        "constant": [False, True, False, False], "roots": [3], "origin": [0, -1, 1, 2],
    },
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_edits_change_a_plan(edit):
    seen = set()
    for seed in range(20):
        plan = json.loads(json.dumps(PLAN))
        edit(plan, random.Random(seed))
        seen.add(repr(plan))
    assert seen - {repr(PLAN)}


def test_bytes_are_damaged_in_many_ways():
    draw = random.Random(0)
    found = [damaged(b"some bytes of a file" * 40, draw) for _ in range(60)]
    assert len({what for what, _ in found}) == 6 and all(raw != b"some bytes of a file" * 40 for _, raw in found)


def test_subjects_have_real_inputs(tmp_path, monkeypatch):
    """Without a search a graph stays as it is, and computes the same."""
    monkeypatch.setenv("TORCH_EQSAT_CACHE_DIR", str(tmp_path))
    assert set(NAMES) <= set(SUBJECTS)
    result = Planner("attention").plan(Options(strategy="none", measure_seconds=0.0))
    assert result.error == 0.0 and not result.changed and not result.lines and result.plan_key


GOOD = {"wrong": False, "error": 0.0, "lines": [], "left": 0, "seconds": 1.0, "changed": True, "plan_key": "a"}


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ({}, {}, []),
        ({"lines": ["one"], "changed": False}, {}, []),
        ({"wrong": True, "error": 0.5}, {}, ["WRONG by 0.5"]),
        ({"lines": ["one", "two"]}, {}, ["2 lines: one; two"]),
        ({"left": 1}, {"left": 2}, ["1 processes left", "next process: 2 processes left"]),
        ({"seconds": 99.0}, {}, ["99 s"]),
        ({}, {"changed": False}, ["next process: not rewritten"]),
        ({"problem": "hangs"}, {"problem": "crashes"}, ["hangs", "next process: crashes"]),
    ],
)
def test_problems_are_told(first, second, found):
    assert problems(Scenario("", ""), [{**GOOD, **first}], {**GOOD, **second}) == found


def test_processes_at_once_have_one_plan():
    assert problems(Scenario("", ""), [GOOD, {**GOOD, "plan_key": "b"}], GOOD) == ["2 keys of one plan"]
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)


def test_outcomes_are_counted_by_mutation():
    counts = Counter({"a | refused": 2, "a | refused, no line": 1, "a | WRONG by 1": 1, "b | right, rewritten": 3,
                      "b | CRASH KeyError": 1})  # fmt: skip
    assert fuzz_table(counts) == [
        ["a", "3", "0", "1", "0", "0", "0"],
        ["b", "0", "3", "0", "1", "0", "0"],
        ["all", "3", "3", "1", "1", "0", "0"],
    ]
