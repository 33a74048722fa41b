"""Plans on disk: found again, or refused in one line whatever was done to them."""

import json
import logging
import os
import random
import time

import pytest

from torch_eqsat.cost import folder
from torch_eqsat.planning.plans.plan_file import LARGEST_PLAN, _canonical, _digest, plan_from_json, plan_to_json
from torch_eqsat.planning.plans.plan_store import load_plan, plan_path
from torch_eqsat.planning.plans.plan_store import store_plan as store

REGION = {
    "count": 1, "terms": 2, "base_ms": 1.5, "best_ms": 0.1, "lower_bound_ms": 0.0, "laws": {"a_law": 2},
    "stop": "saturated", "simulations": 1, "nodes": 9, "seconds": 0.1, "transient": False,
}  # fmt: skip
PROGRAM = {
    "nodes": [["input", {"name": "x0", "shape": [4, 3], "dtype": "float32"}, []],
              ["scalar", {"value": float("-inf"), "shape": [], "dtype": "float32"}, []],
              ["permute", {"dims": [1, 0]}, [0]]],
    "types": [[[4, 3], "float32"], [[], "float32"], [[3, 4], "float32"]],
    "constant": [False, True, False], "roots": [2], "origin": [0, -1, 1],
}  # fmt: skip
PLAN = {"base_ms": 1.5, "best_ms": 0.1, "regions": [REGION], "program": PROGRAM}


@pytest.fixture(autouse=True)
def cache_in(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EQSAT_CACHE_DIR", str(tmp_path))
    folder.forget_trouble()
    yield
    folder.forget_trouble()


@pytest.fixture
def lines(caplog):
    """The lines that were logged."""
    caplog.set_level(logging.WARNING, logger="torch_eqsat")
    return lambda: [record.getMessage() for record in caplog.records]


def sealed(plan, key="key"):
    """The text of a file whose digest is right."""
    return json.dumps({"format": 2, "digest": _digest(key, _canonical(plan)), "plan": plan})


def store_plan(key, values):
    """Store the plan that is written so."""
    store(key, plan_from_json(values))


def loaded(key="key"):
    """The stored plan, as it is written."""
    plan = load_plan(key)
    return plan and json.loads(json.dumps(plan_to_json(plan)))


def write(text):
    path = plan_path("key")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def test_plan_is_found_again():
    assert load_plan("key") is None
    store_plan("key", PLAN)
    assert loaded() == PLAN
    assert load_plan("another") is None
    store_plan("key", {**PLAN, "best_ms": 0.2})
    assert loaded()["best_ms"] == 0.2
    race = {"original_ms": 1.0, "rewritten_ms": 2.0, "winner": "original", "note": ""}
    store_plan("key", {**PLAN, "race": race})
    assert loaded()["race"] == race
    assert [path.name for path in plan_path("key").parent.iterdir()] == ["key.json"]


def check_refused(lines, reason=""):
    assert load_plan("key") is None
    (line,) = lines()
    assert "key.json is not used and removed: " in line and reason in line and "\n" not in line
    assert not plan_path("key").exists()
    store_plan("key", PLAN)
    assert loaded() == PLAN


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", ""),
        (b"{", ""),
        (b"\xff\xfe", ""),
        (b"[]", "valid dict"),
        (b"3", "valid dict"),
        (b"{}", "format"),
        (b'{"format": 1, "base_ms": 1.0}', "format"),
        (b'{"format": 2, "digest": "", "plan": {}}', "digest"),
        (b"[" * 200_000, "recursion"),
        (b'{"format": 2, "digest": "", "plan": ' + b'{"a": ' * 100_000, "recursion"),
        (b" " * (LARGEST_PLAN + 1), "bytes"),
        (json.dumps({"format": 2, "digest": "0" * 64, "plan": PLAN}).encode(), "digest"),
        (sealed(PLAN, "another"), "digest"),
    ],
    ids=range(13),
)
def test_what_is_no_plan_is_refused_with_a_line(content, reason, lines):
    write(content)
    check_refused(lines, reason)


def changed(**changes):
    plan = json.loads(json.dumps(PLAN))
    for place, value in changes.items():
        *path, last = place.split("__")
        target = plan
        for step in path:
            target = target[int(step) if step.isdigit() else step]
        target[int(last) if last.isdigit() else last] = value
    return plan


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"base_ms": "fast"}, "base_ms"),
        ({"best_ms": float("nan")}, "best_ms"),
        ({"best_ms": -1.0}, "best_ms"),
        ({"unknown": 1}, "unknown"),
        ({"regions": {}}, "regions"),
        ({"regions__0__count": "1"}, "regions.0.count"),
        ({"program__roots": [2**31]}, "program.roots.0"),
        ({"program__roots": [-1]}, "program.roots.0"),
        ({"program__roots": [True]}, "program.roots.0"),
        ({"program__nodes__0__1__shape": [10**400]}, "program.nodes.0.1"),
        ({"program__nodes__0__1__shape": {"a": 1}}, "program.nodes.0.1"),
        ({"program__nodes__2": ["permute", {}]}, "program.nodes.2"),
        ({"program__types__0": [[2.5], "float32"]}, "program.types.0"),
        ({"program__constant": [0, 0, 0]}, "program.constant.0"),
        ({"program__origin": [-2, 0, 0]}, "program.origin.0"),
        ({"program__nodes__2__0": "two\nlines"}, "unknown"),
        ({"program__types__2": [[4, 3], "float32"]}, "term 2, permute, is "),
        ({"program__constant": [False]}, "cannot be read"),
    ],
)
def test_a_plan_of_other_types_is_refused(changes, place, lines):
    """Also with the right digest."""
    write(sealed(changed(**changes)))
    check_refused(lines, place)


def test_any_flipped_bit_is_seen(lines):
    store_plan("key", PLAN)
    raw, generator = plan_path("key").read_bytes(), random.Random(0)
    same = 0
    for _ in range(300):
        spoilt = bytearray(raw)
        spoilt[generator.randrange(len(raw))] ^= 1 << generator.randrange(8)
        write(bytes(spoilt))
        found = loaded()
        same += found is not None
        assert found in (None, PLAN)  # white space, or upper case in a number's exponent
    assert same < 100 and len(lines()) == 300 - same


def test_unwritable_cache_is_told_once(tmp_path, monkeypatch, lines):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCH_EQSAT_CACHE_DIR", str(tmp_path / "file"))
    for _ in range(3):
        store_plan("key", PLAN)
        assert load_plan("key") is None
    (line,) = lines()
    assert "cannot be used" in line and "in memory" in line


def test_a_full_disk_leaves_nothing_behind(monkeypatch, lines):
    store_plan("another", PLAN)

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    store_plan("key", PLAN)
    assert [path.name for path in plan_path("key").parent.iterdir()] == ["another.json"]
    (line,) = lines()
    assert "No space left on device" in line


def test_no_home_is_told_once(monkeypatch, lines):
    monkeypatch.delenv("TORCH_EQSAT_CACHE_DIR")

    def nowhere(name):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(folder.platformdirs, "user_cache_dir", nowhere)
    store_plan("key", PLAN)
    assert load_plan("key") is None
    (line,) = lines()
    assert "no home folder; TORCH_EQSAT_CACHE_DIR may name one" in line


def test_a_plan_that_is_too_large_is_not_stored(monkeypatch, lines):
    monkeypatch.setattr("torch_eqsat.planning.plans.plan_file.LARGEST_PLAN", 100)
    store_plan("key", PLAN)
    assert not plan_path("key").exists() and "more than 100" in lines()[0]


@pytest.fixture
def filled(tmp_path):
    """A cache folder with files of so many days, in bytes."""
    days = {"plans-v2/a.json": 1, "plans-v2/b.json": 2, "plans-v2/c.json": 3, "plans-v1/old.json": 91,
            "plans-v2/x.tmp": 2, "plans-v2/new.tmp": 0, "plans-v1/tmpabcd": 2,
            "kernel-times-v3.sqlite.bad-1": 91, "kernel-times-v3.sqlite.bad-1-wal": 91,
            "kernel-times-v3.sqlite.bad-2": 1, "kernel-times-v3.sqlite": 400,
            "others.json": 400, "others.tmp": 400, "tmpother": 400}  # fmt: skip
    for name, age in days.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(1000))
        os.utime(path, (time.time() - age * folder.DAY_S,) * 2)
    return lambda: {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}


OTHERS = {"others.json", "others.tmp", "tmpother", "kernel-times-v3.sqlite"}
YOUNG = {"plans-v2/new.tmp", "kernel-times-v3.sqlite.bad-2"}
PLANS = {f"plans-v2/{name}.json" for name in "abc"}


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        (folder.Keep(), PLANS),
        (folder.Keep(plans=2), PLANS - {"plans-v2/c.json"}),
        (folder.Keep(bytes=1500), {"plans-v2/a.json"}),
        (folder.Keep(days=1.5), {"plans-v2/a.json"}),
    ],
    ids=["defaults", "count", "bytes", "days"],
)
def test_what_is_old_is_removed(tmp_path, filled, keep, left):
    folder.sweep(tmp_path, keep)
    assert filled() == left | OTHERS | YOUNG


def test_plans_that_are_used_stay_and_a_process_looks_once(tmp_path, filled):
    write(sealed(PLAN))
    os.utime(plan_path("key"), (0, 0))
    assert loaded() == PLAN
    store_plan("another", PLAN)
    assert {"plans-v2/key.json", "plans-v2/another.json"} <= filled() and "plans-v1/old.json" not in filled()
    os.utime(plan_path("key"), (0, 0))
    store_plan("a_third", PLAN)
    assert "plans-v2/key.json" in filled()
