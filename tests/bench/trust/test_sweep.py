"""The sweep over torch's operators, and the zoo of models: their rows and tables."""

import json
import subprocess

import pytest
import torch

from bench.trust import sweep, zoo

sweep_cases = pytest.importorskip("bench.trust.sweep_cases", reason="op_db needs expecttest", exc_type=ImportError)
pytestmark = pytest.mark.usefixtures("fresh")


def operator(name):
    return next(op for op in sweep_cases.op_db if sweep_cases.name_of(op) == name)


@pytest.mark.parametrize("kind", ["searched", "drawn"])
@pytest.mark.parametrize("grad", [False, True])
def test_an_operator_agrees(kind, grad):
    case = {"dtype": torch.float32, "wrapper": "sum of linears", "kind": kind, "grad": grad, "frozen": not grad}
    row = sweep_cases.run_case(operator("exp"), case, seed=1)
    assert row["outcome"] == "agree" and row["faults"] == row["refused"] == 0
    assert kind == "searched" or row["rewritten"]


def test_what_is_written_into_the_input_is_compared():
    sample = next(iter(operator("view").sample_inputs("cpu", torch.float32)))
    model = sweep_cases.Wrapped(operator("view").op, sample, "written", 1, torch.float32)
    view, after = sweep_cases.compute(model, sample.input, grad=False)
    assert torch.equal(view.flatten(), after.flatten()) and not torch.equal(after, sample.input)


def test_buffers_are_compared_and_set_back():
    zoo_run = pytest.importorskip("bench.trust.zoo_run")
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5))
    zoo_run.without_dropout(model)
    results = zoo_run.compute(model, model, torch.randn(1, 3, 2, 2), training=True)
    *_, mean, variance, count = results
    assert int(count) == 1 and mean.abs().sum() > 0 and not torch.equal(variance, torch.ones(4))
    assert int(model[1].num_batches_tracked) == 0 and model[2].p == 0.0


def test_a_wrong_result_is_seen(monkeypatch):
    monkeypatch.setattr(sweep_cases, "without_laws", lambda *_: "raised")
    compare = sweep_cases.compare

    def wrong(*arguments):
        problem, facts = compare(*arguments)
        return ("output 0 is off" if "eqsat.strategy" not in arguments[-1] else problem), facts

    monkeypatch.setattr(sweep_cases, "compare", wrong)
    case = {"dtype": torch.float32, "wrapper": "plain", "kind": "searched", "grad": False, "frozen": False}
    assert sweep_cases.run_case(operator("exp"), case, seed=1)["outcome"] == "differ"


def test_cases_are_the_same_in_every_process():
    assert list(sweep_cases.cases(operator("exp"), 3)) == list(sweep_cases.cases(operator("exp"), 3))


def test_rows_of_an_operator_that_was_run_twice(tmp_path):
    results = tmp_path / "rows"
    rows = [{"op": "a", "run": run, "case": "", "outcome": outcome} for run, outcome in ((1, "differ"), (2, "agree"))]
    results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row["outcome"] for row in sweep.read(results)] == ["agree"]
    assert "1 operators, 1 cases" in sweep.table(sweep.read(results))


def test_an_operator_that_ends_its_process_is_crashed(tmp_path, monkeypatch):
    results = tmp_path / "rows"
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, -11, "", "x\nSEGV")
    )
    assert sweep._sweep_some(["a", "b"], results, 0, float("inf")) == ["b"]
    (row,) = sweep.read(results)
    assert (row["op"], row["outcome"], row["reason"]) == ("a", "crashed", "SEGV")


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (subprocess.CompletedProcess([], 0, 'noise\n{"outcome": "ok", "reason": ""}\n', ""), "ok"),
        (subprocess.CompletedProcess([], 1, "", "Traceback\nValueError: bad"), "fault"),
        (subprocess.CompletedProcess([], -9, "", ""), "memory"),
        (subprocess.TimeoutExpired([], 1.0), "timeout"),
    ],
)
def test_what_becomes_of_a_model(monkeypatch, answer, outcome):
    def run(*_, **__):
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(subprocess, "run", run)
    [row] = zoo.run_apart("timm:some", ["live"], 1.0)
    assert row["outcome"] == outcome
    assert "timm, live | 1" in zoo.table([row | {"seconds": 1.0}])


def test_modes_behind_one_that_ends_its_process_are_run(monkeypatch):
    asked = []

    def run(command, **_):
        asked.append(command[4:])
        if "live" in command:
            raise subprocess.TimeoutExpired([], 2.0, b'{"outcome": "ok", "seconds": 1.0}\n{"outc')
        return subprocess.CompletedProcess(command, 0, '{"outcome": "wrong", "seconds": 1.0}\n', "")

    monkeypatch.setattr(subprocess, "run", run)
    rows = zoo.run_apart("timm:some", ["frozen", "live", "training"], 1.0)
    assert [(row["mode"], row["outcome"]) for row in rows] == [
        ("frozen", "ok"), ("live", "timeout"), ("training", "wrong"),
    ]  # fmt: skip
    assert asked == [["frozen", "live", "training"], ["training"]]
