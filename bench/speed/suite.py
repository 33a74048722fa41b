"""The suite: every model in every variant, ``python -m bench.speed.suite [--set ab] [--models a,b] [--variants a,b]``.

The first phase compiles each pair of model and variant in a process of its own, with caches of its own that were empty
before; the second starts it again with what these hold, and asks the variants of a model in turn. Rows are written
pair by pair, and those already there are kept, so that a run which was stopped goes on.

``peak_rss_mb`` is sampled over the process and its descendants, and holds the references in single and double precision
too; eager's row says how much these are. ``compile_jobs`` says how many pairs compiled at once: seconds of several at
once are longer, and the kernels that eqsat measures then are noisier.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from platformdirs import user_cache_path

from bench.models.cases import Case
from bench.models.suite_models import MODELS, SETS
from bench.speed import report, suite_report
from bench.speed.process import VariantError, VariantProcess
from bench.speed.runner import README, Outcome, ask_in_turn, progress
from bench.speed.suite_report import Row
from bench.speed.variants import VARIANTS

_CACHES = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TORCH_EQSAT_CACHE_DIR": "eqsat", "EQSAT_BENCH_CACHE_DIR": "peer"}
_FOUND = ("search_s", "error", "error_fp64", "eager_error_fp64", "predicted_base_ms", "predicted_best_ms")


class Suite:
    """One run: its rows, where they are kept, and where the caches are."""

    def __init__(self, out: Path, caches: Path, limit_s: float, again: bool = False) -> None:
        self.rows = suite_report.load(out)
        self._out = out
        self._caches = caches
        self._limit_s = limit_s
        self._again = again
        self._lock = threading.Lock()

    def compile_all(self, pairs: Sequence[tuple[Case, str]], jobs: int) -> None:
        """The first phase, ``jobs`` pairs at once; a row for each, or the reason why there is none."""
        wanted = [(case, variant) for case, variant in pairs if self._again or (case.name, variant) not in self.rows]
        done = [0]

        def run(pair: tuple[Case, str]) -> None:
            row = self._compile(*pair, jobs)
            with self._lock:
                done[0] += 1
                self._keep(row)
                said = row.get("failure") or f"{row['compile_cold_s']:.1f} s, {row['peak_rss_mb']:.0f} MB"
                progress(f"{_bar(done[0], len(wanted))} {row['model']} {row['variant']}: {said.splitlines()[-1]}")

        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(run, wanted))

    def _compile(self, case: Case, variant: str, jobs: int) -> Row:
        row: Row = {"model": case.name, "variant": variant, "compile_jobs": jobs}
        shutil.rmtree(self._folder(case, variant), ignore_errors=True)
        process = self._start(case, variant)
        try:
            ready, peak = process.ready_with_memory()
        except VariantError as error:
            return {**row, "failure": f"compiling {error}"}
        finally:
            process.close()
        found = suite_report.rounded(ready, _FOUND.__contains__)
        return {**row, "compile_cold_s": round(ready["compile_s"], 2), "peak_rss_mb": round(peak / 2**20), **found}

    def time_all(self, cases: Sequence[Case], seconds: float, rounds: int) -> None:
        """The second phase. All variants of a model that were compiled are timed in turn: times of another hour are
        never compared with them."""
        for index, case in enumerate(cases):
            variants = [name for name in VARIANTS if "compile_cold_s" in self.rows.get((case.name, name), {})]
            timed = all("min_ms" in self.rows[case.name, name] or "failure" in self.rows[case.name, name]
                        for name in variants)  # fmt: skip
            if variants and (self._again or not timed):
                progress(f"{_bar(index, len(cases))} {case.name}: {', '.join(variants)}")
                self._time(case, variants, seconds, rounds)

    def _time(self, case: Case, variants: Sequence[str], seconds: float, rounds: int) -> None:
        with contextlib.ExitStack() as running:
            processes, outcomes = {}, {}
            for variant in variants:
                process = self._start(case, variant)
                running.callback(process.close)
                try:
                    outcomes[variant] = Outcome(process.ready())
                    processes[variant] = process
                    progress(f"  {variant}: ready after {outcomes[variant].ready['compile_s']:.1f} s")
                except VariantError as error:
                    self._keep({**self.rows[case.name, variant], "failure": f"with warm caches {error}"})
            if not processes:
                return
            try:
                ask_in_turn(processes, outcomes, seconds, rounds, progress)
            except VariantError as error:
                progress(f"  FAILED, none of its variants has a time: {error}")
                return
        for variant, outcome in outcomes.items():
            row = {name: value for name, value in self.rows[case.name, variant].items() if name != "failure"}
            self._keep({
                **row,
                "compile_warm_s": round(outcome.ready["compile_s"], 2),
                **suite_report.rounded(outcome.ready, _FOUND.__contains__),
                "search_s": row["search_s"],
                "min_ms": round(outcome.least_ms, 4),
                "median_ms": round(statistics.median(outcome.samples_ms), 4),
                "calls": len(outcome.samples_ms),
            })  # fmt: skip

    def _start(self, case: Case, variant: str) -> VariantProcess:
        folder = self._folder(case, variant)
        folder.mkdir(parents=True, exist_ok=True)
        # A folder each: measured kernels that pairs shared would make the seconds of compiling depend on the order.
        caches = {name: str(folder / part) for name, part in _CACHES.items()}
        return VariantProcess(case.name, variant, caches, folder / "log", self._limit_s)

    def _folder(self, case: Case, variant: str) -> Path:
        return self._caches / case.name / variant

    def _keep(self, row: Row) -> None:
        self.rows[row["model"], row["variant"]] = row
        suite_report.save(self._out, self.rows)


def _bar(done: int, count: int, width: int = 20) -> str:
    filled = width * done // count
    return f"[{'#' * filled}{'.' * (width - filled)}] {done}/{count}"


def arguments() -> argparse.ArgumentParser:
    """The command line of the suite."""
    parser = argparse.ArgumentParser(prog="python -m bench.speed.suite", description=__doc__)
    parser.add_argument("--phase", choices=("both", "compile", "time"), default="both")
    parser.add_argument("--set", default="abc", help="sets of models, of a, b and c")
    parser.add_argument("--models", help=f"instead of sets, some of {', '.join(MODELS)}")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="which to compile (all that are, are timed)")
    parser.add_argument("--jobs", type=int, default=1, help="how many compile at once; the rows say it")
    parser.add_argument("--seconds", type=float, default=45.0, help="about how long a model is timed")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each variant; fewer for a slow model")
    parser.add_argument("--limit", type=float, default=300.0, help="the most seconds for compiling a variant")
    parser.add_argument("--again", action="store_true", help="replace rows that are there")
    parser.add_argument("--readme", action="store_true", help="put the table of the cases into README.md")
    parser.add_argument("--out", type=Path, default=suite_report.RESULTS, help="the JSON file of the rows")
    parser.add_argument("--caches", type=Path, default=user_cache_path("torch_eqsat") / "suite")
    return parser


def chosen(models: str | None, sets: str, variants: str) -> tuple[list[Case], list[str]]:
    """The models and variants of these names, in the order of the tables.

    Raises ValueError for an unknown one.
    """
    names = models.split(",") if models else [case.name for key in SETS if key in sets for case in SETS[key]]
    ways = variants.split(",")
    if unknown := [*(set(names) - MODELS.keys()), *(set(ways) - VARIANTS.keys()), *(set(sets) - SETS.keys())]:
        raise ValueError(f"unknown: {', '.join(unknown)}; see --help for models, variants and sets")
    return [MODELS[name] for name in MODELS if name in names], [name for name in VARIANTS if name in ways]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suite; 1 when an eqsat variant failed or is wrong."""
    parser = arguments()
    options = parser.parse_args(argv)
    try:
        cases, variants = chosen(options.models, options.set, options.variants)
    except ValueError as error:
        parser.error(str(error))
    suite = Suite(options.out, options.caches, options.limit, options.again)
    start = time.monotonic()
    if options.phase != "time":
        pairs = [(c, name) for c in cases for name in variants if VARIANTS[name].trains or not c.training]
        suite.compile_all(pairs, options.jobs)
    if options.phase != "compile":
        suite.time_all(cases, options.seconds, options.rounds)
    print(f"{suite_report.table(suite.rows)}\n\n{(time.monotonic() - start) / 60:.1f} minutes")
    if options.readme and (text := suite_report.readme_text(options.out)):
        report.fill_readme(README, text)
    return 1 if suite_report.broken(suite.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
