"""The table of laws: what the parts give, and what is written."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest

from bench.laws import verify
from bench.laws.hand_rewrites.evaluate import Verdict
from bench.laws.redundancy import Redundancy
from torch_eqsat.laws.law import law
from torch_eqsat.rewrites import catalogue

KEYS = [
    *("laws", "verified", "redundant", "taso_single_derived", "taso_multi_derived"),
    *("hand_rewrites_found", "hand_rewrites_total", "losing_refused", "losing_total", "seconds", "failed"),
]


@pytest.fixture(autouse=True)
def one_process(monkeypatch, tmp_path):
    """Parts run here, on three laws, and write to a folder of the test's."""
    monkeypatch.setattr(verify, "_in_parallel", lambda function, items, chunk=1: [function(item) for item in items])
    monkeypatch.setattr(verify, "DRAWS", 2)
    monkeypatch.setattr(verify, "catalogue", lambda: catalogue()[:3])
    monkeypatch.setattr(verify, "RESULTS", tmp_path / "results" / "laws.json")


def verdict(name, pays, best):
    return Verdict(
        SimpleNamespace(name=name, pays=pays), 2.0, 1.0 if pays else 3.0, best, 0, "", 0.0, 1.0, "", Counter()
    )


def test_verification_counts_and_names_what_is_wrong(monkeypatch, capsys):
    assert verify.verification() == verify.Part({"laws": 3, "verified": 3}, {"verification": {}})

    @law("x := add(a, b)", example="add([2], [2])")
    def wrong(t, x, a, b):
        """a + b = a · b"""
        return t.mul(a, b)

    monkeypatch.setattr(verify, "law_named", lambda name: wrong[0] if name == "scale_of_shifted" else catalogue()[0])
    part = verify.verification()
    assert part.rows == {"laws": 3, "verified": 2}
    assert "law wrong" in part.failed["verification"]["scale_of_shifted"]
    assert "WRONG scale_of_shifted" in capsys.readouterr().out


def test_hand_rewrites_are_counted(monkeypatch):
    answers = {"a": (True, 1.0), "b": (True, 1.5), "c": (False, 2.0), "d": (False, 3.5), "e": (None, 1.0)}
    monkeypatch.setattr(verify, "ROWS", {name: name for name in answers})
    monkeypatch.setattr(verify, "evaluate", lambda name: verdict(name, *answers[name]))
    part = verify.hand_rewrites()
    assert part.rows == {
        "hand_rewrites_found": 1, "hand_rewrites_total": 2, "losing_refused": 1, "losing_total": 2
    }  # fmt: skip
    assert list(part.failed["hand_rewrites"]) == ["b", "d"]


def test_without_the_rules_of_taso(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(verify.taso, "DATA", tmp_path)
    assert set(verify.derivations().rows.values()) == {None}
    assert "skipped" in capsys.readouterr().out


def run(monkeypatch, *arguments):
    monkeypatch.setattr(verify, "ROWS", {})
    monkeypatch.setattr(verify, "redundancy", lambda laws, chosen: Redundancy(("x",), (("a", "b"),), ()))
    monkeypatch.setattr(verify.taso, "DATA", verify.RESULTS.parent)
    monkeypatch.setattr("sys.argv", ["laws", *arguments])
    with pytest.raises(SystemExit) as ended:
        verify.main()
    return ended.value.code


def test_file_has_the_agreed_keys(monkeypatch):
    assert run(monkeypatch) == 0
    written = json.loads(verify.RESULTS.read_text(encoding="utf-8"))
    assert list(written) == KEYS
    assert written["failed"]["one_law"] == ["a = b"]


def test_parts_alone_write_nothing(monkeypatch, capsys):
    assert run(monkeypatch, "--part", "redundancy") == 0
    assert not verify.RESULTS.exists()
    assert "verification" not in capsys.readouterr().out
