"""Drawn models, as Inductor runs them and rewritten: what was predicted, and what is measured.

Run as ``python -m bench.prices.drawn --seconds 600`` (or ``make bench-drawn SECONDS=600``) on an idle machine. Seeds go
on from where the results end, so that each run draws new models. A model that is rewritten is compiled in two
processes, which are timed in turn; of a model that is left alone nothing is timed. Rows are appended to
bench/results/drawn.jsonl, which is not kept in git; the status is 1 when a model was made slower.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.models.drawn_models import WAYS, drawn_name
from bench.models.known import case_of
from bench.speed.process import VariantError, VariantProcess
from bench.speed.variants import THREADS, threads
from torch_eqsat.report import last_reports

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results" / "drawn.jsonl"
VARIANTS = {
    "live": ("default", "eqsat_nofreeze"),
    "frozen": ("freezing", "eqsat"),
    "training": ("default", "eqsat_nofreeze"),
    "half": ("freezing", "eqsat"),
}
ROUNDS, ROUND_MS, MOST_CALLS = 8, 150.0, 400
PLAN_SECONDS = 180.0
SLOWER = 0.98


def row_of(name: str) -> dict[str, Any]:
    """What is predicted of a model, and what is measured if it is rewritten."""
    row = planned(name)
    if row.get("rewritten"):
        try:
            row |= timed(name)
        except VariantError as error:
            row["problem"] = str(error).strip().splitlines()[-1][:300]
    return row


def planned(name: str) -> dict[str, Any]:
    """What the search makes of a model, planned in a process of its own, without code: see `plan`."""
    command = [sys.executable, "-m", "bench.prices.drawn", "--plan", name]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PLAN_SECONDS)
    except subprocess.TimeoutExpired:
        return {"name": name, "problem": f"planning takes more than {PLAN_SECONDS:.0f} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"name": name, "problem": (done.stderr.strip().splitlines() or ["no answer"])[-1][:300]}
    row: dict[str, Any] = json.loads(lines[-1])
    return row


def plan(name: str) -> dict[str, Any]:
    """The row of a model before it is timed: predicted times in ms, and the laws."""
    import torch

    torch.set_num_threads(threads())
    case = case_of(name)
    module, inputs = case.build()
    options: dict[str, Any] = {"freezing": name.endswith(("frozen", "half"))}
    with torch.set_grad_enabled(case.training):
        y = torch.compile(module, backend="eqsat_mcts_eager", options=options, dynamic=False)(*inputs)
        if case.training:
            y.backward()
    made = last_reports()
    laws: dict[str, int] = {}
    for report in made:
        for law, count in report.laws.items() if report.changed else ():
            laws[law] = laws.get(law, 0) + count
    return {
        "name": name,
        "rewritten": any(report.changed for report in made),
        "base_ms": sum(report.base_ms for report in made),
        "best_ms": sum(report.best_ms if report.changed else report.base_ms for report in made),
        "laws": laws,
    }


def timed(name: str) -> dict[str, Any]:
    """Minima and medians in ms of both variants, whose processes are asked in turn."""
    variants = VARIANTS.get(name.rpartition("-")[2], VARIANTS["live"])
    with tempfile.TemporaryDirectory(prefix="eqsat-drawn-") as folder:
        processes = [VariantProcess(name, v, {}, Path(folder) / f"{v}.log") for v in variants]
        try:
            ready = []
            for process in processes:
                ready.append(process.ready())
            calls = [max(1, min(MOST_CALLS, round(ROUND_MS / max(r["call_ms"], 1e-3)))) for r in ready]
            samples: list[list[float]] = [[], []]
            for number in range(ROUNDS):
                for i in (0, 1) if number % 2 == 0 else (1, 0):
                    samples[i] += processes[i].time(calls[i])
        finally:
            for process in processes:
                process.close()
    row: dict[str, Any] = {"error": ready[1]["error_fp64"], "eager_error": ready[1]["eager_error_fp64"]}
    row["inductor_error"] = ready[0]["error_fp64"]
    for variant, times in zip(("inductor", "eqsat"), samples, strict=True):
        row |= {f"{variant}_min_ms": min(times), f"{variant}_median_ms": statistics.median(times)}
    return row


def ratios(row: dict[str, Any]) -> tuple[float, float, float]:
    """How many times as fast as Inductor: predicted, by the fastest calls, by the medians."""
    by_min, by_median = (row[f"inductor_{kind}_ms"] / row[f"eqsat_{kind}_ms"] for kind in ("min", "median"))
    return row["base_ms"] / row["best_ms"], by_min, by_median


def rank_correlation(pairs: list[tuple[float, float]]) -> float:
    """Spearman's: Pearson's correlation of ranks; equal values share their mean rank."""

    def ranks(values: list[float]) -> list[float]:
        return [(sum(w < v for w in values) + sum(w <= v for w in values) - 1) / 2 for v in values]

    if len(pairs) < 3:
        return math.nan
    return statistics.correlation(ranks([a for a, _ in pairs]), ranks([b for _, b in pairs]))


def summary(title: str, rows: list[dict[str, Any]]) -> str:
    """Counts and means."""
    done = [row for row in rows if "eqsat_min_ms" in row]
    mean = math.exp(statistics.fmean(math.log(ratios(row)[1]) for row in done)) if done else math.nan
    return (
        f"{title}: {len(rows)} models, {len(done)} rewritten and timed, geometric mean {mean:.2f}x, "
        f"rank correlation of predicted and measured {rank_correlation([ratios(row)[:2] for row in done]):.2f}, "
        f"{sum(is_slower(row) for row in done)} below {SLOWER}x, {sum('problem' in row for row in rows)} with a problem"
    )


def is_slower(row: dict[str, Any]) -> bool:
    """Whether a model was made slower, by its fastest calls and by the medians."""
    return "eqsat_min_ms" in row and max(ratios(row)[1:]) < SLOWER


def worst(rows: list[dict[str, Any]], count: int = 10) -> list[str]:
    """A line for each of the models that gained least, with the laws, and of each that has a problem."""
    lines = []
    for row in sorted((row for row in rows if "eqsat_min_ms" in row), key=lambda row: ratios(row)[1])[:count]:
        predicted, by_min, by_median = ratios(row)
        laws = ", ".join(sorted(row["laws"], key=lambda law: -row["laws"][law])[:5])
        lines.append(f"  {row['name']}: predicted {predicted:.2f}x, measured {by_min:.2f}x ({by_median:.2f}x): {laws}")
    return [*lines, *(f"  {row['name']}: {row['problem']}" for row in rows if "problem" in row)]


def table(rows: list[dict[str, Any]]) -> str:
    """Counts, means and the worst models."""
    by_way = {way: [row for row in rows if row["name"].endswith(way)] for way in WAYS}
    return "\n".join([*(summary(way, own) for way, own in by_way.items()), summary("all", rows), *worst(rows)])


def read(results: Path) -> list[dict[str, Any]]:
    """All rows."""
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []


def main() -> int:
    """Draw, plan and time models until the time is over, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="time to stop at")
    parser.add_argument("--ways", nargs="*", default=WAYS, choices=WAYS)
    parser.add_argument("--threads", type=int, default=threads(), help="torch's threads")
    parser.add_argument("--names", nargs="*", metavar="NAME", help="these cases only, anew")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--plan", metavar="NAME", help="print what the search makes of one model")
    arguments = parser.parse_args()
    os.environ[THREADS] = str(arguments.threads)
    if arguments.plan:
        print(json.dumps(plan(arguments.plan)))
        return 0
    rows = [row for row in read(arguments.results) if row.get("threads", 1) == arguments.threads]
    seeds = [int(row["name"].split("-")[1]) for row in rows if row["name"].startswith("drawn-")]
    first = 1 + max(seeds, default=-1)
    end = time.monotonic() + arguments.seconds
    names = arguments.names or (drawn_name(seed, way) for seed in range(first, 1 << 30) for way in arguments.ways)
    for name in names:
        if time.monotonic() > end:
            break
        row = row_of(name) | {"threads": arguments.threads}
        print(json.dumps(row), flush=True)
        rows.append(row)
        with arguments.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    print(table(rows))
    return int(any(map(is_slower, rows)))


if __name__ == "__main__":
    sys.exit(main())
