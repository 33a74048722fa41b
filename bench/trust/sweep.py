"""All operators of torch's op_db, under wrappers that laws fire on, through the pass, against eager.

Run as ``python -m bench.trust.sweep --seconds 600`` (or ``make sweep SECONDS=600``). For each operator and dtype:
forward, and forward with backward; weights live and frozen; programs searched for, and programs drawn at random costs,
so that whatever laws make is run. Nothing is timed, no code is generated. Goes on where it was interrupted; rows are
appended to bench/results/sweep.jsonl, which is not kept in git. The status is 1 when a result is wrong that is right
without laws.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results" / "sweep.jsonl"
OPERATORS_A_PROCESS = 10
OPERATOR_SECONDS = 120.0  # for one process, for each of its operators
OUTCOMES = ("agree", "differ", "differ without laws", "eager fails", "raised", "crashed")


def main() -> int:
    """Sweep what is not in the results yet, and print a table of all rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="time to stop at")
    parser.add_argument("--ops", nargs="*", metavar="NAME", help="these operators only, anew")
    parser.add_argument("--seed", type=int, default=0, help="order of operators, and choice of wrappers")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the table and sweep nothing")
    arguments = parser.parse_args()
    results: Path = arguments.results
    done = {row["op"] for row in read(results)}
    end = time.monotonic() + arguments.seconds
    names = [] if arguments.table else list(arguments.ops or _shuffled(arguments.seed, done))
    while names and time.monotonic() < end:
        names = _sweep_some(names, results, arguments.seed, end)
    rows = read(results)
    print(table(rows))
    return int(any(row["outcome"] in ("differ", "crashed") for row in rows))


def read(results: Path) -> list[dict[str, Any]]:
    """The rows, of an operator that was run twice the last ones."""
    if not results.exists():
        return []
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    last = {row["op"]: row["run"] for row in rows}
    return [row for row in rows if row["run"] == last[row["op"]]]


def _shuffled(seed: int, done: set[str]) -> list[str]:
    from bench.trust.sweep_cases import names

    left = [name for name in names() if name not in done]
    random.Random(seed).shuffle(left)
    return left


def _sweep_some(names: list[str], results: Path, seed: int, end: float) -> list[str]:
    """Run a process over the first operators; those that are left. A process that dies costs the operator it ran."""
    some, run = names[:OPERATORS_A_PROCESS], time.time_ns()
    command = [sys.executable, "-m", "bench.trust.sweep_cases", str(results), str(run), str(seed), *some]
    limit = min(OPERATOR_SECONDS * len(some), max(1.0, end - time.monotonic()))
    try:
        process = subprocess.run(command, cwd=ROOT, timeout=limit, stderr=subprocess.PIPE, text=True)
        error = process.stderr.strip().splitlines()[-1:] if process.returncode else []
        stopped = bool(process.returncode)
    except subprocess.TimeoutExpired:
        error, stopped = ["it took too long"], True
    finished = {row["op"] for row in read(results) if row["run"] == run and row["outcome"] == "done"}
    left = [name for name in some if name not in finished]
    if stopped and left and time.monotonic() < end:
        row = {"op": left[0], "run": run, "case": "", "outcome": "crashed", "reason": " ".join(error)}
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        left = left[1:]
    return left + names[OPERATORS_A_PROCESS:]


def table(rows: list[dict[str, Any]]) -> str:
    """Counts by kind of program and mode, and what has to be looked at."""
    cases = [row for row in rows if row["outcome"] != "done"]
    kinds = sorted({row.get("kind", "-") for row in cases})
    lines = [f"{len({row['op'] for row in rows})} operators, {len(cases)} cases"]
    head = ("kind", "ran", "rewritten", *OUTCOMES, "faults", "refused")
    lines.append(" | ".join(head))
    for kind in kinds:
        of = [row for row in cases if row.get("kind", "-") == kind]
        counts = Counter(row["outcome"] for row in of)
        sums = [sum(row.get(name, 0) for row in of) for name in ("rewritten", "faults", "refused")]
        ran = len(of) - counts["eager fails"]
        lines.append(" | ".join(map(str, (kind, ran, sums[0], *(counts[o] for o in OUTCOMES), *sums[1:]))))
    reasons = Counter(reason for row in cases for reason in row.get("reasons", ()))
    lines += ["", "reasons of faults and refusals:", *(f"  {n} x {reason}" for reason, n in reasons.most_common(30))]
    bad = [row for row in cases if row["outcome"] in ("differ", "raised", "crashed")]
    lines += ["", *(f"{row['outcome']}: {row['op']} {row['case']}: {row.get('reason', '')[:300]}" for row in bad)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
