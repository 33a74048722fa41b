"""The suite's phases with fake processes, what its rows come to, and how a process ends and is measured."""

import json
import os
import sys

import pytest
import torch
from torch import nn

from bench.models.cases import Case
from bench.models.suite_models import MODELS, SETS
from bench.speed import process, suite, suite_plot, suite_report, variant
from bench.speed.process import VariantError, VariantProcess

READY = {
    "compile_s": 3.0, "search_s": 1.0, "error": 1e-6, "error_fp64": 1e-6, "eager_error_fp64": 1e-6, "call_ms": 100.0,
    "predicted_base_ms": 5.0, "predicted_best_ms": 1.0,
}  # fmt: skip
MILLISECONDS = {"eager": 9.0, "default": 6.0, "freezing": 4.0, "eqsat": 2.0}


class FakeProcess:
    """A variant as slow as ``MILLISECONDS`` says; autotune takes too long."""

    def __init__(self, case, variant, caches, log, limit_s):
        self.variant = variant
        log.parent.mkdir(parents=True, exist_ok=True)
        (log.parent / "used").touch()

    def ready(self):
        if self.variant == "autotune":
            raise VariantError("took more than 300 s")
        return READY

    def ready_with_memory(self):
        return self.ready(), 3 * 2**20

    def time(self, count):
        return [MILLISECONDS[self.variant]] * count

    def close(self):
        pass


@pytest.fixture
def options(monkeypatch, tmp_path):
    monkeypatch.setattr(suite, "VariantProcess", FakeProcess)
    return ["--models", "trace", "--out", str(tmp_path / "suite.json"), "--caches", str(tmp_path / "caches")]


def test_both_phases_fill_rows_and_a_failed_variant_says_why(options, tmp_path, capsys):
    assert suite.main([*options, "--variants", "default,freezing,autotune,eqsat"]) == 0
    rows = {row["variant"]: row for row in json.loads((tmp_path / "suite.json").read_text())["rows"]}
    assert rows["autotune"]["failure"] == "compiling took more than 300 s"
    assert (rows["eqsat"]["min_ms"], rows["eqsat"]["compile_cold_s"], rows["eqsat"]["compile_warm_s"]) == (
        2.0,
        3.0,
        3.0,
    )
    assert rows["eqsat"]["peak_rss_mb"] == 3
    printed = capsys.readouterr().out
    assert "2.00x" in printed
    assert "trace, autotune: compiling took more than 300 s" in printed


def test_rows_are_kept_unless_again(options, tmp_path, monkeypatch, capsys):
    suite.main([*options, "--variants", "default,eqsat"])
    monkeypatch.setitem(MILLISECONDS, "eqsat", 1.0)
    suite.main([*options, "--variants", "default,eqsat"])
    assert suite_report.load(tmp_path / "suite.json")["trace", "eqsat"]["min_ms"] == 2.0
    suite.main([*options, "--variants", "default,eqsat", "--again"])
    assert suite_report.load(tmp_path / "suite.json")["trace", "eqsat"]["min_ms"] == 1.0


def test_a_variant_that_comes_later_is_timed_together_with_the_others(options, tmp_path, monkeypatch, capsys):
    suite.main([*options, "--variants", "eqsat"])
    monkeypatch.setitem(MILLISECONDS, "eqsat", 1.0)
    suite.main([*options, "--variants", "default"])
    assert suite_report.load(tmp_path / "suite.json")["trace", "eqsat"]["min_ms"] == 1.0


def test_training_models_run_only_in_variants_that_train(options, tmp_path, capsys):
    suite.main([*options[2:], "--models", "train_lora", "--variants", "default,freezing,eqsat", "--phase", "compile"])
    assert list(suite_report.load(tmp_path / "suite.json")) == [("train_lora", "default")]


def test_the_readme_gets_the_cases_of_which_all_is_timed(options, tmp_path, monkeypatch, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results -->\n<!-- /results -->\n")
    monkeypatch.setattr(suite, "README", readme)
    models = ["--models", "trace,resnet50,lstm_loop"]
    suite.main([*options[2:], *models, "--variants", "default,freezing,eqsat", "--readme"])
    cells = [[cell.strip() for cell in line.split("|")] for line in readme.read_text().splitlines() if "2.00x" in line]
    assert [line[1:6] for line in cells] == [
        ["lstm_loop", "4.00", "2.00", "2.00x", "1.0e-06"],
        ["resnet50", "4.00", "2.00", "2.00x", "1.0e-06"],
    ]
    assert "Settings of Inductor: `default`, `freezing`.\n" in readme.read_text()


def test_the_readme_says_which_settings_were_not_run_on_all_models(tmp_path):
    path = tmp_path / "suite.json"
    rows = dict([
        row("lstm_loop", "default", 6.0), row("lstm_loop", "freezing", 4.0), row("lstm_loop", "eqsat", 2.0),
        row("resnet50", "default", 6.0), row("resnet50", "freezing", 4.0), row("resnet50", "eqsat", 2.0, error=0.5),
        row("resnet50", "freezing_cpp", 3.0),
    ])  # fmt: skip
    for entry in rows.values():
        entry["compile_cold_s"] = 3.0
    assert suite_report.readme_text(path) == ""
    suite_report.save(path, rows)
    text = suite_report.readme_text(path)
    assert "Settings of Inductor: `default`, `freezing`, `freezing_cpp` (on 1 of 2 models).\n" in text
    assert "| resnet50  |                 3.00 |             2.00 | WRONG | 5.0e-01 |" in text


def test_unknown_names_are_errors():
    with pytest.raises(ValueError, match="unknown: resnet_51"):
        suite.chosen("resnet_51", "abc", "eqsat")
    with pytest.raises(ValueError, match="unknown: z"):
        suite.chosen(None, "az", "eqsat")


def row(model, name, ms, error=1e-6):
    return (model, name), {"model": model, "variant": name, "min_ms": ms, "error": error}


def test_the_mean_is_of_the_best_inductor_over_eqsat_and_names_what_it_leaves_out():
    rows = dict([
        row("a", "default", 8.0), row("a", "freezing", 4.0), row("a", "eqsat", 2.0),
        row("b", "default", 1.0), row("b", "eqsat", 2.0),
        row("c", "default", 1.0), row("c", "eqsat", 0.1, error=0.5),
    ])  # fmt: skip
    found = suite_report.geometric_mean(rows, "abc", ("default", "freezing"), ("eqsat",))
    assert found == {"mean": 1.0, "models": 2, "worst": 0.5, "worst_model": "b", "excluded": ["c"]}
    assert suite_report.geometric_mean(rows, "abc", ("openvino",), ("eqsat",)) is None


def test_model_names_are_unique_and_the_paper_has_nine():
    assert len(MODELS) == sum(len(cases) for cases in SETS.values())
    assert len(SETS["a"]) == 9


@pytest.mark.parametrize("name", ["trace", "interactions", "swin_mask", "dlrm_bags", "mmoe", "embedding_linear"])
def test_cells_run(name):
    case = MODELS[name]
    with torch.no_grad():
        module, inputs = case.build()
        assert torch.isfinite(module(*inputs)).all()


class Loss(nn.Module):
    """A linear layer's mean square."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return self.linear(x).square().mean()


def test_a_training_case_compares_gradients_and_its_calls_learn(monkeypatch):
    monkeypatch.setattr(variant, "_warm_up", lambda call: 1.0)
    built = []

    def make():
        built.append((Loss(), (torch.randn(4, 3),)))
        return built[-1]

    call, ready = variant.prepare(Case("loss", 0.0, "", make, training=True), "eager")
    assert ready.error == 0.0
    assert 0.0 < ready.error_fp64 < 1e-5
    before = built[0][0].linear.weight.clone()
    call()
    assert not torch.equal(before, built[0][0].linear.weight)


def test_a_list_of_another_length_is_wrong():
    assert variant.largest_error([torch.ones(2)], [torch.ones(2), torch.ones(2)]) == float("inf")
    assert variant.largest_error([torch.ones(2), torch.tensor(3.0)], [torch.ones(2), torch.tensor(2.0)]) == 0.5


def test_a_process_that_is_late_is_ended_with_its_children_and_says_so(monkeypatch, tmp_path):
    script = "import subprocess, sys; subprocess.Popen(['sleep', '60']); sys.stdin.read()"
    started = process.subprocess.Popen
    monkeypatch.setattr(
        process.subprocess, "Popen", lambda command, **rest: started([sys.executable, "-c", script], **rest)
    )
    late = VariantProcess("case", "eager", {}, tmp_path / "log", limit_s=1.0)
    with pytest.raises(VariantError, match="took more than 1 s"):
        late.ready()
    late.close()


def test_memory_counts_the_process_itself():
    assert process.resident_bytes(os.getpid()) > 10 * 2**20


def test_the_plot_has_a_bar_for_each_model_with_both_sides():
    rows = dict([row("trace", "default", 4.0), row("trace", "eqsat", 2.0), row("vgg19", "eqsat", 2.0),
                 row("train_lora", "default", 3.0), row("train_lora", "eqsat_nofreeze", 2.0)])  # fmt: skip
    assert suite_plot.bars(rows) == [("b", "trace", 2.0), ("c", "train_lora", 1.5)]
