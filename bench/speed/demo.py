"""The main job on a real model: ``python -m bench.speed.demo [CASE]``.

Compiles a model with Inductor, with Inductor and freezing, and with eqsat_mcts; compares every output with eager's and
times all of them in turn, each in a process of its own with one thread.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

from bench.models.cases import CASES, named
from bench.speed import report, runner
from bench.speed.process import VariantError

_MODEL = "mobileone_s0"
_TITLES = {
    "eager": "eager",
    "default": "Inductor default",
    "freezing": "Inductor with freezing",
    "eqsat": "eqsat_mcts with freezing",
}
_HEADER = ("variant", "latency ms", "median ms", "speedup over eager", "error", "first call s", "search s")


def table(outcomes: Mapping[str, runner.Outcome]) -> str:
    """A line for each variant; latency is that of the fastest call, the error the largest against eager."""
    return report.markdown(_HEADER, [_cells(variant, outcomes) for variant in outcomes])


def _cells(variant: str, outcomes: Mapping[str, runner.Outcome]) -> list[str]:
    outcome = outcomes[variant]
    speedup = outcomes["eager"].least_ms / outcome.least_ms
    seconds = [f"{outcome.ready[key]:.1f}" for key in ("compile_s", "search_s")]
    times = [f"{outcome.least_ms:.2f}", f"{outcome.median_ms:.2f}", f"{speedup:.2f}x"]
    return [_TITLES[variant], *times, f"{outcome.ready['error']:.1e}", *seconds]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; 1 when an output is wrong or a variant failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.speed.demo", description=__doc__)
    parser.add_argument("case", nargs="?", default=_MODEL, choices=CASES)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    [case] = named([options.case])
    try:
        with runner.caches() as where:
            outcomes = runner.measure(case, list(_TITLES), options.rounds, where, runner.progress)
    except VariantError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    row = runner.row_of(case, outcomes)
    print(f"\n{case.description}\n{report.machine()}\n\n{table(outcomes)}\n")
    print(
        f"eqsat_mcts over the better of the two Inductors: {row['ratio']:.2f}x, of medians {row['ratio_median']:.2f}x"
    )
    wrong = [variant for variant, outcome in outcomes.items() if report.is_wrong(outcome.ready["error"])]
    print(f"WRONG outputs: {', '.join(wrong)}" if wrong else f"all outputs agree with eager to {report.TOLERANCE:.0e}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
