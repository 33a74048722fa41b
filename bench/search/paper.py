"""The paper's graphs by every strategy, on the same laws, prices and limits.

Run as ``python -m bench.search.paper``. Rows go to bench/results/paper.json as they are made, and those that are there
are not made again (``--again`` makes them anew). Costs over time, growth and trees of the first seed go to
paper_curves.json, for ``python -m bench.search.plots``. Both files say with which parameters of the search their rows
were made. Prices: see bench/search/standalone.py; measure them with ``python -m bench.search.paper_costs``.
"""

from __future__ import annotations

import argparse
import base64
import json
import pickle
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.models.paper_graphs import GRAPHS, captured, task_of
from torch_eqsat.search.limits import StopReason
from torch_eqsat.search.parameters import SearchParameters
from torch_eqsat.search.strategies.table import STRATEGIES as TABLE

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results" / "paper.json"
CURVES = ROOT / "bench" / "results" / "paper_curves.json"
STRATEGIES = tuple(reversed(TABLE))
MARGIN_SECONDS = 60.0  # after its limit a run is killed

Row = dict[str, Any]


def key_of(row: Row) -> tuple[Any, ...]:
    """What makes a row that row."""
    return row["graph"], row["strategy"], row["seed"], row["node_limit"]


@dataclass
class Results:
    """A results file: its rows, and the parameters of the searches that made them; None if those are not known."""

    parameters: dict[str, Any] | None
    rows: Sequence[Any]

    def changed(self) -> list[str]:
        """The names of the parameters that were others than today's."""
        mine, then = asdict(SearchParameters()), self.parameters
        return [] if then is None else sorted(n for n in mine | then if (n, mine.get(n)) not in then.items())

    def __str__(self) -> str:
        return f"parameters: {self.parameters or 'not recorded'}"


def read(path: Path) -> Results:
    """A results file; no rows when there is none."""
    if not path.is_file():
        return Results(asdict(SearchParameters()), [])
    return Results(**json.loads(path.read_text(encoding="utf-8")))


def write(path: Path, results: Results) -> None:
    """One row a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(row) for row in results.rows)
    parameters = json.dumps(results.parameters)
    path.write_text(f'{{"parameters": {parameters}, "rows": [\n{lines}\n]}}\n', encoding="utf-8")


def search(task: bytes, order: Row) -> dict[str, Any] | str:
    """The answer of a process that searches, or why there is none."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bench.search.paper_run"],
            input=f"{json.dumps(order)}\n{base64.b64encode(task).decode()}\n",
            capture_output=True, text=True, cwd=ROOT, timeout=order["limit_seconds"] + MARGIN_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "it took too long"
    if done.returncode:
        return f"exit code {done.returncode}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def reduction(row: Row) -> float:
    """The share of the base cost that was saved, in per cent."""
    return float(100.0 * (1.0 - row["best_ms"] / row["base_ms"]))


def print_table(rows: Sequence[Row], nodes: int) -> None:
    """Mean reduction (standard deviation) in per cent, and mean seconds, of each graph and strategy."""
    strategies = [s for s in STRATEGIES if s != "none" and any(r["strategy"] == s for r in rows)]
    print(f"\nnode limit {nodes:,}: reduction in per cent (standard deviation), seconds")
    print(f"{'graph':14}{'base ms':>10}" + "".join(f"{s:>24}" for s in strategies))
    means: dict[str, list[tuple[float, float]]] = {s: [] for s in strategies}
    for graph in GRAPHS:
        cells = []
        here = [r for r in rows if r["graph"] == graph and r["node_limit"] == nodes]
        for strategy in strategies:
            found = [r for r in here if r["strategy"] == strategy]
            if not found:
                cells.append(f"{'-':>24}")
                continue
            gains = [reduction(r) for r in found]
            seconds = statistics.mean(r["seconds"] for r in found)
            means[strategy].append((statistics.mean(gains), seconds))
            cells.append(f"{statistics.mean(gains):11.2f} ({statistics.pstdev(gains):4.2f}){seconds:6.1f}")
        if here:
            print(f"{graph:14}{here[0]['base_ms']:10.3f}" + "".join(cells))
    line = "".join(
        f"{statistics.mean(g for g, _ in m):11.2f}       {statistics.mean(s for _, s in m):6.1f}" if m else f"{'-':>24}"
        for m in means.values()
    )
    print(f"{'mean':14}{'':10}{line}")
    for strategy in strategies:
        found = [r for r in rows if r["strategy"] == strategy and r["node_limit"] == nodes]
        caps = sorted({r["limit_seconds"] for r in found})
        seeds = len({r["seed"] for r in found})
        ended = sum(r["stop"] == StopReason.TIME for r in found)
        print(
            f"{strategy}: {seeds} {'seed' if seeds == 1 else 'seeds'}, at most "
            f"{' or '.join(f'{cap:.0f}' for cap in caps)} s a search, which ended {ended} of {len(found)}"
        )


def print_row(answer: dict[str, Any]) -> None:
    """One search: costs, saving, time, end, and the laws that made most of the program."""
    row = answer["row"]
    laws = ", ".join(f"{name} x{count}" for name, count in list(answer["laws"].items())[:4])
    print(
        f"{row['graph']:14}{row['strategy']:10}{row['seed']:3}{row['node_limit']:7}{row['base_ms']:10.4f}"
        f"{row['best_ms']:10.4f}{reduction(row):7.2f} %{row['seconds']:7.1f} s  {row['stop']:15}"
        f"{answer['nodes']:6} e-nodes, {answer['lacking']} prices estimated  {laws}",
        flush=True,
    )


def main() -> None:
    """Make the rows that are missing, print the tables."""
    parser = argparse.ArgumentParser(description="The paper's graphs by every strategy.")
    parser.add_argument("--graphs", nargs="+", default=list(GRAPHS), choices=list(GRAPHS))
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--node-limits", nargs="+", type=int, default=[2000])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each search (default: %(default)s)")
    parser.add_argument("--exact-seconds", type=float, default=10.0, help="of the exact extraction at its end")
    parser.add_argument("--jobs", type=int, default=1, help="searches at a time; with more, times are not to be quoted")
    parser.add_argument("--again", action="store_true", help="make rows anew that are there")
    parser.add_argument("--table", action="store_true", help="print the tables of the rows that are there")
    arguments = parser.parse_args()
    before, drawn = read(RESULTS), read(CURVES)
    rows = {key_of(row): row for row in before.rows}
    curves = {key_of(row): row for row in drawn.rows}
    common = {"limit_seconds": arguments.seconds, "exact_seconds": arguments.exact_seconds}
    common |= {"parameters": asdict(SearchParameters())}
    orders = [
        {"graph": graph, "strategy": strategy, "seed": seed, "node_limit": nodes}
        for graph in ([] if arguments.table else arguments.graphs)
        for nodes in arguments.node_limits
        for strategy in arguments.strategies
        for seed in (arguments.seeds[:1] if strategy == "none" else arguments.seeds)
    ]
    wanted = [order for order in orders if arguments.again or key_of(order) not in rows]
    if wanted and (changed := sorted({*before.changed(), *drawn.changed()})):
        parser.error(f"rows were made with other parameters ({', '.join(changed)}): move {RESULTS} and {CURVES} away")
    print(before)
    tasks = {graph: pickle.dumps(task_of(captured(GRAPHS[graph]))) for graph in {o["graph"]: 0 for o in wanted}}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for order, answer in zip(
            wanted, pool.map(lambda o: search(tasks[o["graph"]], o | common), wanted), strict=True
        ):
            if isinstance(answer, str):
                print(f"{' '.join(map(str, key_of(order)))}: failed, {answer}", flush=True)
                continue
            rows[key_of(order)] = answer["row"]
            print_row(answer)
            write(RESULTS, Results(before.parameters, [rows[key] for key in sorted(rows)]))
            if order["seed"] == 0:
                curves[key_of(order)] = order | answer["drawn"]
                write(CURVES, Results(drawn.parameters, [curves[key] for key in sorted(curves)]))
    for nodes in sorted({row["node_limit"] for row in rows.values()}):
        print_table(list(rows.values()), nodes)


if __name__ == "__main__":
    main()
