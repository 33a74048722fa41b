"""Every module of ``bench`` that is run says on ``--help`` how, and does no work."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENTRIES = [
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for file in sorted(ROOT.glob("bench/**/*.py"))
    if '\nif __name__ == "__main__":\n' in file.read_text(encoding="utf-8")
]


def test_entries_are_found():
    assert {"bench.speed.demo", "bench.laws.hand_rewrites.evaluate"} <= set(ENTRIES)


@pytest.mark.parametrize("name", ENTRIES)
def test_help(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.delitem(sys.modules, name, raising=False)  # runpy warns of a module that is loaded already
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    out = capsys.readouterr().out
    assert ended.value.code == 0 and out.startswith("usage: ") and "--help" in out
