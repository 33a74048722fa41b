"""The comparison of predicted with measured times: statistics, rows, and what is compared, without compiling."""

import json

import pytest
import torch

from bench.models.paper_graphs import captured, task_of
from bench.models.suite_models import MODELS
from bench.prices import costs
from bench.prices.cost_subjects import HEAVY, fusible_subjects, heavy_subject, heavy_subjects, tiny
from bench.speed import suite_report
from bench.speed.variants import VARIANTS
from torch_eqsat.cost.kernel import Kernel, Measurement
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.cost.programs import captured_program
from torch_eqsat.cost.roofline import cpu_roofline
from torch_eqsat.cost.table import Context, Table

MODEL = next(iter(MODELS))
SUITE = {
    (MODEL, "freezing"): {"model": MODEL, "variant": "freezing", "min_ms": 4.0, "error": 0.0},
    (MODEL, "eqsat"): {
        "model": MODEL, "variant": "eqsat", "min_ms": 2.0, "error": 0.0, "predicted_base_ms": 2.9,
        "predicted_best_ms": 1.9,
    },
}  # fmt: skip

KERNELS = [
    Kernel.matmul((4, 16), (16, 8), weight=True),
    Kernel.matmul((4, 16), (16, 8), turned=True),
    Kernel.matmul((2, 4, 16), (2, 16, 8)),
    Kernel.conv((1, 4, 9, 9), (8, 2, 3, 3), stride=2, padding=1, groups=2, weight=True),
    Kernel.conv((1, 4, 9), (8, 4, 3), padding=1),
    Kernel.sdpa((1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8), causal=True),
]


def rows(predicted, measured):
    return [costs.row(str(i), "graph", p, m) for i, (p, m) in enumerate(zip(predicted, measured, strict=True))]


def test_spearman_knows_order_alone():
    assert costs.spearman(rows([1.0, 2.0, 300.0], [1.0, 5.0, 6.0])) == 1.0
    assert costs.spearman(rows([3.0, 2.0, 1.0], [1.0, 5.0, 6.0])) == -1.0
    assert costs.spearman(rows([1.0, 2.0], [1.0, 2.0])) is None


def test_quantiles_of_errors():
    some = rows([1.1, 1.2, 1.3, 1.4], [1.0] * 4)
    assert costs.quantile(some, 0.5) == 0.2
    assert costs.quantile(some, 0.9) == 0.4
    assert costs.quantile([], 0.5) is None


def test_graphs_are_compared_with_the_call_added():
    before, after = costs.graph_rows(SUITE, call_ms=0.1)
    assert (before["predicted_ms"], before["measured_ms"], before["error"]) == (3.0, 4.0, 0.25)
    assert (after["name"], after["predicted_ms"], after["error"]) == (f"{MODEL}, rewritten", 2.0, 0.0)


def test_a_graph_left_as_it_is_counts_once_and_one_without_times_not():
    left = SUITE | {(MODEL, "eqsat"): SUITE[MODEL, "eqsat"] | {"predicted_best_ms": 2.9}}
    assert [row["name"] for row in costs.graph_rows(left, call_ms=0.1)] == [f"{MODEL}, captured"]
    compiled = {key: {name: v for name, v in row.items() if name != "min_ms"} for key, row in SUITE.items()}
    assert costs.graph_rows(compiled, call_ms=0.1) == []


def test_the_file_is_made_of_stored_operators_and_the_cases(tmp_path, capsys):
    out, suite = tmp_path / "costs.json", tmp_path / "suite.json"
    with pytest.raises(SystemExit):
        costs.main(["--graphs", "--out", str(out)])
    suite_report.save(suite, SUITE)
    out.write_text(json.dumps(costs.summary([costs.row("add", "operator", 3.0, 2.0)], [], 0.1)))
    assert costs.main(["--graphs", "--out", str(out), "--suite", str(suite)]) == 0
    result = json.loads(out.read_text())
    assert (result["median_error_ops"], result["p90_error_graphs"]) == (0.5, 0.25)
    assert result["worst"] == ["add", f"{MODEL}, captured", f"{MODEL}, rewritten"]
    assert f"{MODEL}, captured" in capsys.readouterr().out


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.key)
def test_a_subject_runs_the_kernel_that_it_is_named_after(kernel):
    subject = heavy_subject(kernel)
    module, inputs = subject.copies()
    assert module(*inputs)[0].shape == kernel.out_shape
    prices = Pricing(frozen=kernel.weight or kernel.kind == "conv")
    missing = {}
    captured_program(task_of(captured(subject.copies)), prices, missing)
    assert list(missing) == [kernel.key]


@pytest.mark.slow
def test_heavy_subjects_are_of_every_kind():
    names = [subject.name for subject in heavy_subjects()]
    assert len(set(names)) == len(names) == HEAVY
    assert {name.split()[0] for name in names} == {"matmul", "conv", "sdpa"}


def test_fusible_subjects_are_captured_and_priced():
    subjects = fusible_subjects()
    assert len({subject.name for subject in subjects}) == len(subjects)
    with Table(Context("cpu", "none", 1, "none"), ":memory:") as table:
        free = [s.name for s in subjects if costs.predicted_ms(s, table) < 1e-5]
    assert not free


def test_what_is_measured_is_a_copy_less_the_call(monkeypatch):
    [add] = [s for s in fusible_subjects() if s.name == "add 2^16"]
    times = {"tiny": 1.0, "add": 1.0 + 0.5 * add.count}
    monkeypatch.setattr(costs, "measured_ms", lambda subject: times[subject.name.split()[0]])
    monkeypatch.setattr(costs, "predicted_ms", lambda subject, table: 0.6)
    monkeypatch.setattr(costs, "context_of", lambda device: Context(device, "none", 1, "none"))
    [row], call_ms = costs.compare([add])
    assert (row["measured_ms"], row["error"], call_ms) == (0.5, 0.2, 1.0)


def test_tiny_takes_as_many_inputs():
    module, inputs = tiny(3, 2).copies()
    assert len(inputs) == 3 * 2
    assert len(module(*inputs)) == 2


def test_measuring_takes_the_best_of_three(monkeypatch):
    samples = iter([3.0, 1.0, 2.0])

    class Timer:
        def time(self, calls):
            return Measurement(next(samples), 0.0, 1)

    monkeypatch.setattr(costs, "CpuTimer", Timer)
    monkeypatch.setattr(costs, "VARIANTS", {"freezing": VARIANTS["eager"]})
    with torch.no_grad():
        assert costs.measured_ms(tiny(1, 2)) == 1.0


def test_ratios_of_measured_and_estimated():
    roofline, kernels = cpu_roofline(), [Kernel.matmul((n, 64), (64, 64)) for n in (8, 16, 32)]
    pairs = [(k, f * roofline.lower_estimate_ms(k)) for k, f in zip(kernels, (0.5, 2.0, 4.0), strict=True)]
    found = costs.measured_over_estimated(pairs, roofline)
    assert (found.count, found.median, found.least, found.most) == pytest.approx((3, 2.0, 0.5, 4.0))
    assert found.optimistic == pytest.approx(2 / 3)
    assert costs.measured_over_estimated([], roofline) is None
