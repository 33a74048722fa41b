"""Times the cases: ``python -m bench.speed.runner [CASE ...]``.

Every variant of a case has a process of its own; they are kept alive and asked in turn, so that a machine that
becomes slower or faster meanwhile does so for all alike. Results are merged into the JSON file case by case.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.models.cases import CASES, Case, named
from bench.speed import report
from bench.speed.process import VariantError, VariantProcess
from bench.speed.variants import VARIANTS

README = Path(__file__).parents[2] / "README.md"
Say = Callable[[str], None]

_CASE_S = 90.0
_LEAST_TIMING_S = 20.0
_LEAST_ROUNDS = 3
_TURN_S = (0.2, 1.5)
_CALLS = (3, 400)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one variant did: what it found when it was ready, and the milliseconds of its calls."""

    ready: dict[str, float]
    samples_ms: list[float] = field(default_factory=list)

    @property
    def least_ms(self) -> float:
        """The fastest call."""
        return min(self.samples_ms)

    @property
    def median_ms(self) -> float:
        """The middle of all calls."""
        return statistics.median(self.samples_ms)


class Caches:
    """The cache folders of one run, fresh unless ``warm``: Inductor's one per process, that of torch_eqsat shared by
    all cases, since its measured kernels are."""

    def __init__(self, folder: Path, warm: bool = False) -> None:
        self.folder = folder
        self._warm = warm

    def of(self, case: str, variant: str) -> dict[str, str]:
        """The environment variables for one process; none when the user's own caches are used."""
        if self._warm:
            return {}
        own = self.folder / f"inductor-{case}-{variant}"
        return {"TORCHINDUCTOR_CACHE_DIR": str(own), "TORCH_EQSAT_CACHE_DIR": str(self.folder / "eqsat")}

    def log(self, case: str, variant: str) -> Path:
        """The file for what a process prints."""
        return self.folder / f"{case}-{variant}.log"


@contextlib.contextmanager
def caches(warm: bool = False) -> Iterator[Caches]:
    """The caches of a run, removed after it."""
    with tempfile.TemporaryDirectory(prefix="eqsat-bench-", ignore_cleanup_errors=True) as folder:
        yield Caches(Path(folder), warm)


def measure(case: Case, variants: Sequence[str], rounds: int, where: Caches, say: Say) -> dict[str, Outcome]:
    """Compile every variant, one after the other, then time them in turn.

    Raises VariantError, naming the variant, when one fails.
    """
    say(f"{case.name}: {case.description}")
    start = time.monotonic()
    with contextlib.ExitStack() as running:
        processes = {}
        outcomes = {}
        for variant in variants:
            processes[variant] = VariantProcess(
                case.name, variant, where.of(case.name, variant), where.log(case.name, variant)
            )
            running.callback(processes[variant].close)
            outcomes[variant] = Outcome(_ready(variant, processes[variant], say))
        left_s = max(_CASE_S - (time.monotonic() - start), _LEAST_TIMING_S)
        ask_in_turn(processes, outcomes, left_s, rounds, say)
    return outcomes


def ask_in_turn(
    processes: Mapping[str, VariantProcess], outcomes: Mapping[str, Outcome], left_s: float, rounds: int, say: Say
) -> None:
    """Time the variants in turn for about ``left_s`` seconds; adds the samples to ``outcomes``."""
    rounds, calls = plan([outcomes[variant].ready["call_ms"] for variant in processes], left_s, rounds)
    for turn in range(rounds):
        for (variant, process), count in zip(processes.items(), calls, strict=True):
            outcomes[variant].samples_ms.extend(process.time(count))
        best = ", ".join(f"{variant} {outcomes[variant].least_ms:.2f}" for variant in processes)
        say(f"  round {turn + 1} of {rounds}: fastest so far, ms: {best}")


def plan(call_ms: Sequence[float], left_s: float, rounds: int) -> tuple[int, list[int]]:
    """How many rounds, and how many calls of each variant in a round, fill about ``left_s`` seconds.

    >>> plan([1.0, 10.0], 14.0, 7)
    (7, [400, 100])
    >>> plan([1000.0, 2000.0], 20.0, 7)
    (3, [3, 3])
    """
    turn_s = min(max(left_s / (rounds * len(call_ms)), _TURN_S[0]), _TURN_S[1])
    calls = [min(max(int(turn_s * 1e3 / ms), _CALLS[0]), _CALLS[1]) for ms in call_ms]
    round_s = sum(count * ms for count, ms in zip(calls, call_ms, strict=True)) / 1e3
    return max(min(rounds, int(left_s / round_s)), min(rounds, _LEAST_ROUNDS)), calls


def _ready(variant: str, process: VariantProcess, say: Say) -> dict[str, float]:
    say(f"  {variant}: compiles …" if variant != "eager" else "  eager: runs …")
    try:
        ready = process.ready()
    except VariantError as error:
        raise VariantError(f"variant {variant} {error}") from error
    search = f", {ready['search_s']:.1f} s of it search" if variant.startswith("eqsat") else ""
    say(
        f"  {variant}: first call {ready['compile_s']:.1f} s{search}; error {ready['error']:.1e}, "
        f"against fp64 {ready['error_fp64']:.1e} (eager {ready['eager_error_fp64']:.1e})"
    )
    if report.is_wrong(ready["error"]):
        say(f"  {variant}: WRONG, the error is above {report.TOLERANCE:.0e}")
    return ready


def row_of(case: Case, outcomes: dict[str, Outcome]) -> report.Row:
    """The row of a case of which all compared variants were measured."""
    samples = {variant: outcome.samples_ms for variant, outcome in outcomes.items()}
    return report.row(case.name, samples, outcomes["eqsat"].ready)


def summary(rows: Sequence[report.Row]) -> str:
    """The machine and the table."""
    return f"{report.machine()}\n\n{report.table(rows, {case.name: case.threshold for case in CASES.values()})}"


def readme_text(rows: Sequence[report.Row]) -> str:
    """What the README says when ``make bench`` writes it: of Inductor, default and freezing were timed."""
    compared = [
        report.Comparison(
            row["case"], min(row["default_ms"], row["freezing_ms"]), row["eqsat_ms"], row["error"], row["compile_s"]
        )
        for row in rows
    ]
    return report.readme_text(report.machine(), "`default`, `freezing`", compared)


def arguments() -> argparse.ArgumentParser:
    """The command line of the runner."""
    parser = argparse.ArgumentParser(prog="python -m bench.speed.runner", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"all when none is given: {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each variant; fewer for a slow case")
    parser.add_argument("--variants", default=",".join(report.COMPARED), help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="the JSON file that rows are merged into")
    parser.add_argument("--resume", action="store_true", help="skip the cases that the file has")
    parser.add_argument("--warm", action="store_true", help="use your own compilation caches instead of fresh ones")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 when an output is wrong or a variant failed, a missed threshold is no failure."""
    parser = arguments()
    options = parser.parse_args(argv)
    variants = options.variants.split(",")
    if unknown := set(variants) - set(VARIANTS):
        parser.error(f"unknown variant {', '.join(sorted(unknown))}")
    try:
        cases = named(options.cases)
    except ValueError as error:
        parser.error(str(error))
    done = {row["case"] for row in report.load(options.out)} if options.resume else set()
    with caches(options.warm) as where:
        sound = [run_case(case, variants, options, where) for case in cases if case.name not in done]
    rows = report.load(options.out)
    print(f"\n{summary(rows)}")
    if options.readme and rows:
        report.fill_readme(README, readme_text(rows))
    return 0 if all(sound) else 1


def run_case(case: Case, variants: Sequence[str], options: argparse.Namespace, where: Caches) -> bool:
    """Measure a case and merge its row into the file; whether every output of eqsat was right."""
    say = progress
    try:
        outcomes = measure(case, variants, options.rounds, where, say)
    except VariantError as error:
        say(f"  FAILED: {error}")
        return False
    if set(report.COMPARED) <= outcomes.keys():
        entry = row_of(case, outcomes)
        report.save(options.out, [entry], list(CASES))
        say(f"  {entry['ratio']:.2f}x, of medians {entry['ratio_median']:.2f}x (at least {case.threshold:.2f}x)")
    ours = [outcome for variant, outcome in outcomes.items() if variant.startswith("eqsat")]
    return not any(report.is_wrong(outcome.ready["error"]) for outcome in ours)


def progress(line: str) -> None:
    """Print a line of progress at once, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
