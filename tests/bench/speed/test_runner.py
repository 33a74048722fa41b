"""The runner and the variants' protocol, with functions in place of compiled models and processes."""

import io
import itertools
import json
from typing import ClassVar

import pytest
import torch

from bench.models.cases import CASES, named
from bench.speed import demo, report, runner, variant

READY = {
    "compile_s": 3.0, "search_s": 1.0, "error": 1e-6, "error_fp64": 1e-6, "eager_error_fp64": 1e-6, "call_ms": 100.0,
    "predicted_base_ms": 7.0, "predicted_best_ms": 5.0,
}  # fmt: skip


class FakeProcess:
    """Stands in for a process: every call of a variant takes as many ms as its name is long."""

    log: ClassVar[list[str]] = []

    def __init__(self, case, variant, caches, log):
        self.variant = variant

    def ready(self):
        if self.variant == "eqsat_nofreeze":
            raise runner.VariantError("ended with status 1")
        return {**READY, "error": 1.0 if self.variant == "eager" else 1e-6}

    def time(self, count):
        self.log.append(self.variant)
        return [float(len(self.variant))] * count

    def close(self):
        self.log.append("close")


@pytest.fixture
def processes(monkeypatch):
    monkeypatch.setattr(FakeProcess, "log", [])
    monkeypatch.setattr(runner, "VariantProcess", FakeProcess)
    return FakeProcess.log


def test_variants_are_asked_in_turn(processes, tmp_path):
    outcomes = runner.measure(CASES["resnet50"], report.COMPARED, 3, runner.Caches(tmp_path), lambda line: None)
    assert processes == [*report.COMPARED * 3, "close", "close", "close"]
    assert runner.row_of(CASES["resnet50"], outcomes)["ratio"] == 7 / 5
    assert "Inductor with freezing" in demo.table({"eager": outcomes["default"], **outcomes})


def test_a_failed_variant_is_named_and_closes_the_others(processes, tmp_path):
    with pytest.raises(runner.VariantError, match="variant eqsat_nofreeze ended"):
        runner.measure(CASES["resnet50"], ("default", "eqsat_nofreeze"), 3, runner.Caches(tmp_path), lambda line: None)
    assert processes == ["close", "close"]


def test_resume_skips_what_is_there(processes, tmp_path, capsys):
    out = tmp_path / "cases.json"
    names = ["lstm_loop", "resnet50"]
    assert runner.main([names[1], "--out", str(out), "--rounds", "1"]) == 0
    assert runner.main([*names, "--out", str(out), "--rounds", "1", "--resume"]) == 0
    assert [row["case"] for row in report.load(out)] == names
    assert processes.count("eqsat") == 2
    assert "| resnet50 " in capsys.readouterr().out


def test_status_is_that_of_eqsat_and_of_failures(processes, tmp_path):
    out = ["--out", str(tmp_path / "cases.json"), "--rounds", "1"]
    assert runner.main(["lstm_loop", "--variants", "eager,default", *out]) == 0
    assert runner.main(["lstm_loop", "--variants", "default,eqsat_nofreeze", *out]) == 1
    assert report.load(tmp_path / "cases.json") == []


@pytest.mark.parametrize("argv", [["no_such_case"], ["lstm_loop", "--variants", "slow"]])
def test_unknown_names_are_refused(argv, capsys):
    with pytest.raises(SystemExit):
        runner.main(argv)
    assert "unknown" in capsys.readouterr().err


def test_caches_are_fresh_for_each_process_and_shared_by_eqsat():
    with runner.caches() as where:
        folders = [where.of(case, variant) for case, variant in itertools.product(("a", "b"), ("default", "eqsat"))]
        assert len({entry["TORCHINDUCTOR_CACHE_DIR"] for entry in folders}) == 4
        assert len({entry["TORCH_EQSAT_CACHE_DIR"] for entry in folders}) == 1
    with runner.caches(warm=True) as where:
        assert where.of("a", "eqsat") == {}


def test_protocol():
    replies = io.StringIO()
    calls = []
    variant.serve(lambda: calls.append(1), io.StringIO("time 3\ntime 2\nquit\ntime 9\n"), replies)
    assert [len(json.loads(line)) for line in replies.getvalue().splitlines()] == [3, 2]
    assert len(calls) == 5
    with pytest.raises(ValueError, match="neither"):
        variant.serve(lambda: None, io.StringIO("stop\n"), replies)


def test_relative_error():
    reference = torch.tensor([1.0, -4.0])
    assert variant.relative_error(torch.tensor([1.0, -3.0]), reference) == 0.25
    assert variant.relative_error(torch.zeros(3), reference) == float("inf")
    assert variant.relative_error(torch.tensor([1.0, float("nan")]), reference) == float("inf")


def test_eager_variant():
    with torch.no_grad():
        call, ready = variant.prepare(CASES["linear_768_64_768"], "eager")
    assert (ready.error, ready.search_s) == (0.0, 0.0)
    assert ready.error_fp64 == ready.eager_error_fp64 < 1e-5
    assert call().shape == (256, 768)


def test_cases_are_the_same_in_every_build():
    [case] = named(["lstm_loop"])
    (one, inputs), (two, same) = case.build(), case.build()
    assert not one.training
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert torch.equal(*inputs, *same)


def test_batch_norms_are_random_and_near_what_they_see():
    module, _ = CASES["densenet121"].build()
    norms = [norm for norm in module.modules() if isinstance(norm, torch.nn.BatchNorm2d)]
    for norm in norms:
        for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
            assert tensor.std() > 0
        assert norm.running_var.min() > 0
