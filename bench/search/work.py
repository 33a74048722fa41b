"""What the searches of a model cost and find: ``python -m bench.search.work`` (or ``make bench-search``).

Each model is planned in a process of its own, without code generation. CPU seconds are those of its search workers,
their start and all extractions included; they depend little on what else runs, where seconds do. E-nodes are those of
the largest e-graph of each distinct region. With ``--against COMMIT`` each model is planned by that commit as well,
before this one and with the same table of kernel times. Writes bench/results/search.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results" / "search.json"
MODELS = ("mobileone_s0", "repvgg_a0", "lstm_loop", "densenet121", "bert_base", "bert_classifier")
SECONDS, MEASURE_SECONDS = 60.0, 60.0
HEAD = f"{'model':18}{'commit':12}{'CPU [s]':>9}{'time [s]':>9}{'saved':>8}{'e-nodes':>9}{'per s':>7}{'playouts':>9}"

Row = dict[str, Any]


def planned(name: str, seconds: float) -> Row:
    """Plan a model in this process; the row of the table."""
    import torch

    from bench.models.suite_models import SETS
    from torch_eqsat import report as reports

    cases = {case.name: case for set_ in SETS.values() for case in set_}
    module, inputs = cases[name].build()
    torch.set_num_threads(1)
    options = {
        "eqsat.seconds": seconds,
        "eqsat.measure_seconds": MEASURE_SECONDS,
        "eqsat.cache": False,
        "eqsat.judge": False,
        "freezing": True,
        "force_disable_caches": True,
    }
    before = _children_seconds()
    with torch.no_grad():
        torch.compile(module, backend="eqsat_mcts_eager", options=options, dynamic=False)(*inputs)
    made = reports.last_reports()
    regions = [region for report in made for region in report.regions]
    return {
        "model": name,
        "cpu_seconds": round(_children_seconds() - before, 2),
        "search_seconds": round(sum(report.search_seconds for report in made), 2),
        "base_ms": round(sum(report.base_ms for report in made), 4),
        "best_ms": round(sum(report.best_ms for report in made), 4),
        "nodes": sum(region.nodes for region in regions),
        "playouts": sum(region.simulations for region in regions),
        "stops": sorted({region.stop for region in regions}),
    }


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def line(row: Row) -> str:
    """A row as a line of the table."""
    saved = 1 - row["best_ms"] / row["base_ms"] if row["base_ms"] else 0.0
    rate = row["nodes"] / row["cpu_seconds"] if row["cpu_seconds"] else 0.0
    return (
        f"{row['model']:18}{row['commit']:12}{row['cpu_seconds']:9.2f}{row['search_seconds']:9.2f}{saved:8.1%}"
        f"{row['nodes']:9,}{rate:7.0f}{row['playouts']:9}"
    )


def run(tree: Path, name: str, seconds: float, commit: str, times: str) -> Row:
    """Plan a model by the package of ``tree`` in a process of its own; ``times`` is the folder of kernel times."""
    command = [sys.executable, "-P", str(Path(__file__)), "--one", name, "--seconds", str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(tree), "TORCH_EQSAT_CACHE_DIR": times, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tree, env=environment, check=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "commit": commit}


@contextmanager
def trees(against: str | None) -> Iterator[list[tuple[str, Path]]]:
    """The other commit, if one is given, and this checkout, each with its folder."""
    here = [("this", ROOT)]
    if against is None:
        yield here
        return
    from bench.replay import checkout

    with checkout(against) as tree:
        yield [(against[:10], tree), *here]


def main() -> None:
    """Plan the models, print the table, write the rows."""
    parser = argparse.ArgumentParser(prog="python -m bench.search.work", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of the suite; {', '.join(MODELS)} without any")
    parser.add_argument("--against", metavar="COMMIT", help="plan by this commit as well")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="eqsat.seconds")
    parser.add_argument("--times", help="folder of the table of kernel times, to go on with; a new one without it")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", metavar="MODEL", help="plan one in this process and print its row")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(planned(given.one, given.seconds)))
        return
    rows: list[Row] = []
    with trees(given.against) as versions, tempfile.TemporaryDirectory() as folder:
        print(time.strftime("%Y-%m-%d"), f"eqsat.seconds={given.seconds:g}", f"{os.cpu_count()} CPUs", sep=", ")
        print(HEAD)
        for name in given.models or MODELS:
            for commit, tree in versions:
                rows.append(run(tree, name, given.seconds, commit, given.times or folder))
                print(line(rows[-1]), flush=True)
    given.out.write_text(json.dumps({"seconds": given.seconds, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
