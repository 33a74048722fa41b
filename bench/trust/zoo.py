"""The smallest model of each timm family, and transformers' architectures with tiny configurations, through the pass.

Run as ``python -m bench.trust.zoo --seconds 600`` (or ``make zoo SECONDS=600``). Each model runs frozen, live, and for
one training step, by the backend ``eqsat_mcts_eager`` in strict mode, with random weights, in a process a model with
limits of processor time (so that other work beside it changes nothing) and memory. Goes on where it was interrupted;
rows are appended to bench/results/zoo.jsonl, which is not kept in git. The status is 1 when a result is wrong that is
right with torch's own backend, or the pass faults.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results" / "zoo.jsonl"
MODES = ("frozen", "live", "training")
OUTCOMES = ("ok", "refused", "fault", "wrong", "wrong without us", "timeout", "memory", "no model")
MODEL_SECONDS, MEMORY_BYTES = 90.0, 12 << 30
BUSY = 4.0
"""How many times its processor time a process may take by the wall, beside other work."""


def main() -> int:
    """Run what is not in the results yet, and print a table of all rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="time to stop at")
    parser.add_argument("--models", nargs="*", metavar="SOURCE:NAME", help="these models only, anew")
    parser.add_argument("--modes", nargs="*", default=MODES, choices=MODES)
    parser.add_argument("--model-seconds", type=float, default=MODEL_SECONDS, help="for one model in one mode")
    parser.add_argument("--seed", type=int, default=0, help="the order of models")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    arguments = parser.parse_args()
    done = {(row["model"], row["mode"]) for row in read(arguments.results)}
    end = time.monotonic() + arguments.seconds
    for model, modes in [] if arguments.table else _wanted(arguments, done):
        if time.monotonic() > end:
            break
        for row in run_apart(model, modes, arguments.model_seconds):
            print(json.dumps(row), flush=True)
            with arguments.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    rows = read(arguments.results)
    print(table(rows))
    return int(any(row["outcome"] in ("wrong", "fault") for row in rows))


def _wanted(arguments: argparse.Namespace, done: set[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    if arguments.models:
        return [(model, list(arguments.modes)) for model in arguments.models]
    from bench.models.zoo_models import names

    models = names()
    random.Random(arguments.seed).shuffle(models)
    left = [(model, [mode for mode in arguments.modes if (model, mode) not in done]) for model in models]
    return [(model, modes) for model, modes in left if modes]


def read(results: Path) -> list[dict[str, Any]]:
    """The last row of each model and mode."""
    if not results.exists():
        return []
    rows = map(json.loads, results.read_text(encoding="utf-8").splitlines())
    return list({(row["model"], row["mode"]): row for row in rows}.values())


def run_apart(model: str, modes: Sequence[str], seconds: float) -> list[dict[str, Any]]:
    """The rows of one model in some modes, which a process makes; another goes on behind a mode that ended it."""
    command = [sys.executable, "-m", "bench.trust.zoo_run", model, *modes]
    limit = int(seconds * len(modes))
    try:
        process = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=BUSY * limit, preexec_fn=partial(_limit, limit)
        )
    except subprocess.TimeoutExpired as expired:
        printed = expired.stdout or b""
        output = printed.decode() if isinstance(printed, bytes) else printed
        outcome, reason = "timeout", f"more than {BUSY * limit:.0f} s of wall time"
    else:
        output, errors = process.stdout, process.stderr.strip().splitlines()
        reason = (errors or [f"status {process.returncode}"])[-1]
        memory = "MemoryError" in reason or "alloc" in reason or process.returncode < 0
        outcome = "memory" if memory else "fault"
        if process.returncode == -signal.SIGXCPU:
            outcome, reason = "timeout", f"more than {limit:.0f} s of processor time"
    lines = [line for line in output.splitlines() if line.startswith("{") and line.endswith("}")]
    rows = [{"model": model, "mode": mode} | json.loads(line) for mode, line in zip(modes, lines, strict=False)]
    if len(rows) == len(modes):
        return rows
    ended = {"model": model, "mode": modes[len(rows)], "outcome": outcome, "reason": reason[:300], "seconds": seconds}
    left = modes[len(rows) + 1 :]
    return [*rows, ended, *(run_apart(model, left, seconds) if left else [])]


def _limit(seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))


def table(rows: list[dict[str, Any]]) -> str:
    """Counts by source and mode, and what is not ok."""
    lines = [" | ".join(("source, mode", "models", *OUTCOMES, "rewritten", "median s"))]
    for source, mode in sorted({(row["model"].partition(":")[0], row["mode"]) for row in rows}):
        of = [row for row in rows if row["model"].startswith(f"{source}:") and row["mode"] == mode]
        counts = Counter(row["outcome"] for row in of)
        times = sorted(row["seconds"] for row in of)
        rewritten = sum(bool(row.get("rewritten")) for row in of)
        cells = (f"{source}, {mode}", len(of), *(counts[o] for o in OUTCOMES), rewritten, times[len(times) // 2])
        lines.append(" | ".join(map(str, cells)))
    others = [row for row in rows if row["outcome"] != "ok"]
    return "\n".join([*lines, "", *(f"{r['outcome']}: {r['model']} {r['mode']}: {r['reason'][:300]}" for r in others)])


if __name__ == "__main__":
    sys.exit(main())
