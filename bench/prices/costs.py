"""Predicted against measured: ``python -m bench.prices.costs``; whole graphs are those of ``make bench-suite``.

Each operator is compiled by Inductor with frozen weights, some copies of it to a graph, and timed inside that graph
less what a graph of as many tiny additions takes. Prices are those that ``torch-eqsat calibrate`` stored, else the
defaults. Whole graphs are the models of ``make bench-suite``, as captured and as rewritten, of which
``bench/results/suite.json`` holds both the predicted and the measured times.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch

from bench.models.paper_graphs import captured, task_of
from bench.prices.cost_subjects import Subject, fusible_subjects, heavy_subjects, tiny
from bench.speed import report, suite_report
from bench.speed.runner import progress
from bench.speed.variants import VARIANTS
from torch_eqsat.cost.calibration import calibration_of
from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.measure.batch import measure_many
from torch_eqsat.cost.measure.kernels import context_of
from torch_eqsat.cost.measure.pace import Pace
from torch_eqsat.cost.measure.timer import CpuTimer
from torch_eqsat.cost.model import Missing
from torch_eqsat.cost.pricing import MEMORY_SHARE, Pricing
from torch_eqsat.cost.programs import captured_program, residency_of
from torch_eqsat.cost.roofline import Roofline, cpu_roofline
from torch_eqsat.cost.table import Table

RESULTS = Path(__file__).parents[1] / "results" / "costs.json"
WORST = 5
# A time is trusted down to this; an operator of less is lost in that of the call (ms).
LEAST_MS = 1e-4


class Row(TypedDict):
    """One comparison in ms; ``error`` is relative to what was measured."""

    name: str
    kind: str
    predicted_ms: float
    measured_ms: float
    error: float


def row(name: str, kind: str, predicted_ms: float, measured_ms: float) -> Row:
    """The row of a comparison."""
    measured_ms = max(measured_ms, LEAST_MS)
    error = abs(predicted_ms - measured_ms) / measured_ms
    return Row(
        name=name,
        kind=kind,
        predicted_ms=round(predicted_ms, 6),
        measured_ms=round(measured_ms, 6),
        error=round(error, 4),
    )


def graph_rows(suite: suite_report.Rows, call_ms: float) -> list[Row]:
    """For each model that has predictions and times: the program as captured and, if it was rewritten, that one, both
    with frozen weights, and the time ``call_ms`` of an empty compiled call added to what is predicted."""
    rows = []
    for (model, variant), ours in suite.items():
        theirs = suite.get((model, "freezing"), {})
        if variant != "eqsat" or not ours.get("predicted_base_ms") or "min_ms" not in ours or "min_ms" not in theirs:
            continue
        before, after = ours["predicted_base_ms"], ours["predicted_best_ms"]
        rows.append(row(f"{model}, captured", "graph", before + call_ms, theirs["min_ms"]))
        if after < before:
            rows.append(row(f"{model}, rewritten", "graph", after + call_ms, ours["min_ms"]))
    return rows


def ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value, from 0; equal values share the mean of theirs.

    >>> ranks([3.0, 1.0, 3.0])
    [1.5, 0.0, 1.5]
    """
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) - 1) / 2 for value in values]


def spearman(rows: Sequence[Row]) -> float | None:
    """Spearman's rank correlation of predicted and measured times; None for fewer than three rows."""
    if len(rows) < 3:
        return None
    predicted, measured = ([r[key] for r in rows] for key in ("predicted_ms", "measured_ms"))
    return round(statistics.correlation(ranks(predicted), ranks(measured)), 4)


def quantile(rows: Sequence[Row], share: float) -> float | None:
    """The error that ``share`` of the rows do not exceed; None without rows."""
    if not rows:
        return None
    return sorted(r["error"] for r in rows)[max(0, math.ceil(share * len(rows)) - 1)]


def summary(operators: Sequence[Row], graphs: Sequence[Row], call_ms: float) -> dict[str, Any]:
    """What ``costs.json`` holds."""
    worst = sorted((*operators, *graphs), key=lambda r: -r["error"])[:WORST]
    return {
        "spearman_graphs": spearman(graphs),
        "median_error_ops": quantile(operators, 0.5),
        "median_error_heavy": quantile([r for r in operators if r["kind"] == "heavy"], 0.5),
        "median_error_fusible": quantile([r for r in operators if r["kind"] != "heavy"], 0.5),
        "median_error_graphs": quantile(graphs, 0.5),
        "p90_error_graphs": quantile(graphs, 0.9),
        "call_ms": round(call_ms, 6),
        "worst": [r["name"] for r in worst],
        "operators": list(operators),
        "graphs": list(graphs),
    }


def predicted_ms(subject: Subject, table: Table) -> float:
    """What the prices say of one copy of a subject, its heavy kernels measured; an operator alone moves all its bytes
    itself."""
    task = task_of(captured(subject.copies))
    known = calibration_of(table)
    prices = Pricing(
        frozen=True,
        coefficients=known.coefficients,
        roofline=known.roofline,
        memory_share=1.0 if subject.kind == "operator" else MEMORY_SHARE,
        epilogues=True,
        residency=residency_of(task, frozen=True),
    )
    missing: Missing = {}
    captured_program(task, prices, missing)
    prices.measured.update(measure_many(list(missing.values()), CpuTimer(), table, pace=Pace(table.paces_ms())))
    return captured_program(task, prices).cost / subject.count


def measured_ms(subject: Subject) -> float:
    """The time of one call of the compiled copies."""
    torch._dynamo.reset()
    module, inputs = subject.copies()
    compiled = VARIANTS["freezing"].compiled(module.eval(), inputs)
    call = partial(compiled, *inputs)
    call()
    return min(CpuTimer().time([call]).ms for _ in range(3))


def compare(subjects: Sequence[Subject]) -> tuple[list[Row], float]:
    """A row for each subject, and the time of a call that computes nothing to speak of."""
    rows = []
    shapes = sorted({(s.inputs, s.count) for s in subjects})
    empty = {shape: measured_ms(tiny(*shape)) for shape in shapes}
    with Table(context_of("cpu")) as table:
        for number, subject in enumerate(subjects):
            alone_ms = (measured_ms(subject) - empty[subject.inputs, subject.count]) / subject.count
            rows.append(row(subject.name, subject.kind, predicted_ms(subject, table), alone_ms))
            progress(f"{number + 1}/{len(subjects)} {subject.name}: {rows[-1]}")
    return rows, empty[min(empty)]


@dataclass(frozen=True)
class Ratios:
    """Measured times over estimated ones, for ``count`` kernels: their median, smallest and largest, and the share of
    them that are at least 1, as optimistic estimates should make them."""

    count: int
    median: float
    least: float
    most: float
    optimistic: float


def measured_over_estimated(measured: Iterable[tuple[Kernel, float]], roofline: Roofline) -> Ratios | None:
    """How the ``roofline`` compares with ``measured`` ``(kernel, ms)`` pairs of its device and dtype; None for none.

    >>> kernel = Kernel.matmul((32, 64), (64, 48))
    >>> roofline = Roofline(1e8, 1e7, 0.0)
    >>> measured_over_estimated([(kernel, 2 * roofline.lower_estimate_ms(kernel))], roofline)
    Ratios(count=1, median=2.0, least=2.0, most=2.0, optimistic=1.0)
    """
    ratios = [ms / roofline.lower_estimate_ms(kernel) for kernel, ms in measured]
    if not ratios:
        return None
    optimistic = sum(ratio >= 1 for ratio in ratios) / len(ratios)
    return Ratios(len(ratios), statistics.median(ratios), min(ratios), max(ratios), optimistic)


def target_ratios(subjects: Sequence[Subject]) -> dict[str, float] | None:
    """Measured times of the heavy kernels over those by which ``eqsat.target`` plans for a CPU that is not here."""
    missing: Missing = {}
    for subject in subjects:
        if subject.kind == "heavy":
            captured_program(task_of(captured(subject.make)), Pricing(frozen=True), missing)
    with Table(context_of("cpu")) as table:
        found = table.lookup_many(missing)
    pairs = [(kernel, found[key].ms) for key, kernel in missing.items() if key in found]
    ratios = measured_over_estimated(pairs, cpu_roofline())
    return None if ratios is None else {name: round(value, 3) for name, value in asdict(ratios).items()}


def table_of(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, the worst first."""
    cells = [
        (r["name"], r["kind"], f"{r['predicted_ms']:.4f}", f"{r['measured_ms']:.4f}", f"{r['error']:.0%}")
        for r in sorted(rows, key=lambda r: -r["error"])
    ]
    return report.markdown(("what", "kind", "predicted ms", "measured ms", "error"), cells)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare and print; the operators measured before are kept with ``--graphs``."""
    parser = argparse.ArgumentParser(prog="python -m bench.prices.costs", description=__doc__)
    parser.add_argument("--graphs", action="store_true", help="take the operators from the file instead of measuring")
    parser.add_argument("--only", default="", help="measure the operators whose name holds this, write nothing")
    parser.add_argument("--suite", type=Path, default=suite_report.RESULTS, help="the rows of make bench-suite")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON file")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    if options.graphs and not options.out.exists():
        parser.error(f"{options.out} does not exist: run without --graphs first")
    if options.graphs:
        old = json.loads(options.out.read_text())
        operators, call_ms, ratios = old["operators"], old["call_ms"], old.get("measured_over_estimated")
    else:
        subjects = [s for s in (*heavy_subjects(), *fusible_subjects()) if options.only in s.name]
        if not subjects:
            parser.error(f"no operator's name holds {options.only!r}")
        with torch.no_grad():
            operators, call_ms = compare(subjects)
        ratios = target_ratios(subjects)
    result = {"measured_over_estimated": ratios} | summary(
        operators, graph_rows(suite_report.load(options.suite), call_ms), call_ms
    )
    print(table_of([*result["operators"], *result["graphs"]]))
    print("\n".join(f"{key}: {value}" for key, value in result.items() if key not in ("operators", "graphs")))
    if not options.only:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
