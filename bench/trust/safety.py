"""What the default assumptions cost: predicted times of the benchmark's cases, by default and with all assumptions
granted.

Run as ``python -m bench.trust.safety`` (or ``make safety``), with names of cases for some of them. Graphs are planned
and judged and no code is generated; kernels are timed where the table lacks them, so nothing else should run. Results
are merged into bench/results/safety.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from bench.models.cases import CASES, Case, named
from torch_eqsat import report as reports
from torch_eqsat.laws.assumptions import GRANTED, PROPERTIES

RESULTS = Path(__file__).resolve().parents[1] / "results" / "safety.json"
CHOICES = {"default": sorted(GRANTED), "all finite": [*sorted(GRANTED), "all_finite"], "everything": list(PROPERTIES)}


def planned(case: Case, assume: list[str]) -> reports.GraphReport:
    """The report on the one graph of ``case``, whose programs may ``assume`` so much."""
    torch.compiler.reset()
    module, inputs = case.build()
    options: dict[str, Any] = {"freezing": True, "eqsat.assume": assume, "eqsat.cache": False}
    with torch.no_grad():
        torch.compile(module, backend="eqsat_mcts_eager", options=options)(*inputs)
    return reports.last_reports()[-1]


def main() -> None:
    """Plan the cases and print a table of predicted ms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)} (default: all)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    print(f"{'case':24} {'original ms':>12} " + " ".join(f"{name:>12}" for name in CHOICES), flush=True)
    for case in named(options.cases):
        found = {name: planned(case, assume) for name, assume in CHOICES.items()}
        row = {"original_ms": found["default"].base_ms}
        row |= {name: report.best_ms if report.changed else report.base_ms for name, report in found.items()}
        rows[case.name] = row
        print(f"{case.name:24} " + " ".join(f"{value:12.3f}" for value in row.values()), flush=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
