"""What may go wrong around a search, tried for real: ``python -m bench.trust.faults`` prints a table.

Each scenario plans a small graph in a process that meets a fault, and then in another one without it, with the same
cache. Every one has to give the right result, in time, with one line in the log at most, and leave no process; and the
second process has to rewrite the graph, as if nothing had happened. Then plans and tables are damaged in many ways.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.speed import report
from bench.trust.fault_scenarios import LIMIT_S, SCENARIOS, at_moments, full, run
from bench.trust.fuzz_plans import NAMES

CHUNK = 500  # mutated files a process
OK = ("refused", "right")


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as name:
        try:
            with full(Path(name)):
                return True
        except (OSError, subprocess.SubprocessError):
            return False


def fuzz(count: int, jobs: int, seed: int, say: Callable[[str], None]) -> Counter[str]:
    """How often what became of ``count`` mutated files, by mutation and outcome."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="eqsat-faults-") as name, ThreadPoolExecutor(jobs) as threads:
        pieces = [min(CHUNK, count - begin) for begin in range(0, count, CHUNK)]
        futures = [
            threads.submit(_fuzzed, Path(name) / str(i), NAMES[i % len(NAMES)], piece, seed + i)
            for i, piece in enumerate(pieces)
        ]
        for number, future in enumerate(futures):
            counts += future.result(LIMIT_S * len(futures) * 10)
            say(f"mutated files: {min(count, CHUNK * (number + 1))} of {count}")
    return counts


def _fuzzed(folder: Path, subject: str, count: int, seed: int) -> Counter[str]:
    folder.mkdir()
    command = [sys.executable, "-m", "bench.trust.fuzz_plans", "--subject", subject]
    command += ["--count", str(count), "--seed", str(seed)]
    environment = {**os.environ, "TORCH_EQSAT_CACHE_DIR": str(folder), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=LIMIT_S * 10,
        )
        return Counter(json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return Counter({f"{subject} seed {seed} | HANG": 1})
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        return Counter({f"{subject} seed {seed} | CRASH ({done.returncode}) {last[:150]}": 1})


def kind_of(outcome: str) -> str:
    """The column of the table of mutations that an outcome belongs to."""
    bad = {"WRONG": "wrong", "CRASH": "crash", "HANG": "hang", "LINES": "lines"}
    return bad.get(outcome.partition(" ")[0], "right" if outcome.startswith("right") else "refused")


def fuzz_table(counts: Counter[str]) -> list[list[str]]:
    """A row for each mutation: how often it was refused, and used and right, wrong, a crash, a hang, many lines."""
    kinds = ("refused", "right", "wrong", "crash", "hang", "lines")
    by: dict[str, Counter[str]] = {}
    for key, number in counts.items():
        what, _, outcome = key.partition(" | ")
        by.setdefault(what, Counter())[kind_of(outcome)] += number
    rows = [[what, *(str(row[kind]) for kind in kinds)] for what, row in sorted(by.items())]
    return [*rows, ["all", *(str(sum(row[kind] for row in by.values())) for kind in kinds)]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the scenarios and the mutations; 1 when anything is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m bench.trust.faults", description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="words that names of scenarios have to contain")
    parser.add_argument("--plans", type=int, default=10_000, help="mutated plans and tables (0 for none)")
    parser.add_argument("--moments", type=int, default=20, help="moments at which each wait is disturbed")
    parser.add_argument("--jobs", type=int, default=2, help="processes that try mutated files at once")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    wanted = []
    for scenario in [*SCENARIOS, *at_moments(options.moments)]:
        if options.only and not any(word in scenario.name for word in options.only):
            continue
        if scenario.around is full and not can_mount():
            say(f"{scenario.name}: skipped, it needs the right to mount a tmpfs")
            continue
        wanted.append(scenario)
    rows = []
    for scenario in wanted:
        rows.append(run(scenario))
        say(" | ".join(rows[-1]))
    print(report.markdown(("fault", "finding", "s", "rewritten", "line", "NOT AS IT SHOULD BE"), rows))
    failed = any(row[-1] for row in rows)
    if options.plans:
        counts = fuzz(options.plans, options.jobs, options.seed, say)
        header = ("mutation", "refused", "used, right", "WRONG", "crash", "hang", "many lines")
        print("\n" + report.markdown(header, fuzz_table(counts)))
        bad = {key: number for key, number in counts.items() if kind_of(key.partition(" | ")[2]) not in OK}
        for key, number in sorted(bad.items()):
            print(f"{number} x {key}")
        failed |= bool(bad)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
