"""The scenarios of `bench.trust.faults`: what goes wrong, and what has to be right all the same."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.trust.fault_child import MEASURE_SECONDS, SECONDS, TOLERATED

LIMIT_S = 300.0  # of a process: what takes longer hangs
MARK = "EQSAT_FAULTS_RUN"
Around = Callable[[Path], Any]


@dataclass(frozen=True)
class Scenario:
    """A fault that the first process meets: by its name in `bench.trust.fault_child`, and by what is done ``around``
    it. ``warm`` has the graph planned before, and several ``processes`` meet it at once."""

    name: str
    findings: str
    fault: str = "none"
    arguments: Sequence[str] = ()
    around: Around = lambda folder: nullcontext()
    warm: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    processes: int = 1


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Another process keeps the table for itself."""
    (path,) = folder.glob("*.sqlite")
    database = sqlite3.connect(path)
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("BEGIN EXCLUSIVE")
    database.execute("DELETE FROM kernel WHERE 0")
    try:
        yield
    finally:
        database.close()


@contextmanager
def spoilt(pattern: str, content: bytes, folder: Path) -> Iterator[None]:
    for path in folder.glob(pattern):
        path.write_bytes(content)
    yield


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """The cache lies on a disk of 40 KB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(folder)], check=True, timeout=30)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, timeout=30)


@contextmanager
def printing(folder: Path) -> Iterator[None]:
    (folder / "sitecustomize.py").write_text("import sys; print('hello'); print('there', file=sys.stderr)")
    yield


DEEP = b'{"format": 1, "a": ' + b"[" * 200_000
SCENARIOS = [
    Scenario("worker killed once", "F1", "killed"),
    *[Scenario(f"workers killed, moment {seed}", "F1", "killed again", ("--seed", str(seed))) for seed in range(4)],
    Scenario("workers stopped", "F1 F2", "stopped"),
    Scenario("workers stopped, large request", "F2", "stopped", ("--subject", "deep", "--seed", "2")),
    Scenario("worker that does not read", "F2", "not reading", ("--subject", "deep")),
    Scenario("worker that prints at its start", "F5", "printing", around=printing),
    Scenario("interpreter that is missing", "F1", "missing"),
    Scenario("no interpreter known", "F1", "none at all"),
    Scenario("interpreter that ends at once", "F1", "true"),
    Scenario("interpreter that is another program", "F1 F5", "yes"),
    Scenario("worker out of memory", "F1", arguments=("--memory-bytes", str(256 << 20))),
    Scenario("machine too busy to time kernels", "F1", "busy"),
    Scenario("Ctrl-C in the search", "F1", "interrupt"),
    Scenario("table locked by another process", "F10", around=locked, warm=True),
    Scenario("table damaged", "F8", around=partial(spoilt, "*.sqlite", b"no table" * 999), warm=True),
    Scenario("table empty", "F8", around=partial(spoilt, "*.sqlite", b""), warm=True),
    Scenario("plan of deep nesting", "F8", around=partial(spoilt, "plans-*/*.json", DEEP), warm=True),
    Scenario("plan empty", "F3", around=partial(spoilt, "plans-*/*.json", b""), warm=True),
    Scenario("disk full", "F9", around=full),
    Scenario("no home folder, user without a name", "F7", "no home"),
    Scenario("four processes at once", "F6", processes=4),
]

AT_A_MOMENT = {"worker killed": "killed", "worker stopped": "stopped", "Ctrl-C": "interrupted"}


def at_moments(count: int) -> list[Scenario]:
    """Each wait is disturbed at ``count`` random moments, of a small graph and of a large one in turn."""
    subjects = ("linears", "deep")
    return [
        Scenario(
            f"{name}, moment {i}", "F1 F2", f"{fault} at a moment", ("--subject", subjects[i % 2], "--seed", str(i))
        )
        for name, fault in AT_A_MOMENT.items()
        for i in range(count)
    ]


def start(scenario: Scenario, folder: Path, *arguments: str) -> dict[str, Any]:
    """What a process of a scenario printed, with what it left behind."""
    mark = f"{os.getpid()}-{folder.name}"
    environment = {**os.environ, "TORCH_EQSAT_CACHE_DIR": str(folder), "OMP_NUM_THREADS": "1", MARK: mark}
    root = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join([root, str(folder)] if scenario.fault == "printing" else [root])
    begin = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bench.trust.fault_child", *arguments],
            env=environment, capture_output=True, text=True, timeout=LIMIT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"problem": "hangs", "left": left_behind(mark)}
    try:
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        return {"problem": f"crashes ({done.returncode}): {last}"[:150], "left": left_behind(mark)}
    return {**result, "left": left_behind(mark) + result["children"], "wall": time.monotonic() - begin}


def left_behind(mark: str) -> int:
    """Processes of a run that are there two seconds after its end."""
    end = time.monotonic() + 2.0
    while (count := _marked(mark)) and time.monotonic() < end:
        time.sleep(0.1)
    return count


def _marked(mark: str) -> int:
    count = 0
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            count += f"{MARK}={mark}".encode() in path.read_bytes()
        except OSError:
            continue
    return count


def problems(scenario: Scenario, results: Sequence[dict[str, Any]], second: dict[str, Any]) -> list[str]:
    """What is not as it should be, after the fault and in the next process."""
    found = []
    for when, result in [*(("", result) for result in results), ("next process: ", second)]:
        if "problem" in result:
            found.append(when + result["problem"])
            continue
        if result["wrong"]:
            found.append(f"{when}WRONG by {result['error']:.2g}")
        if len(result["lines"]) > 1 or any("\n" in line for line in result["lines"]):
            found.append(f"{when}{len(result['lines'])} lines: {'; '.join(result['lines'])[:200]}")
        if result["left"]:
            found.append(f"{when}{result['left']} processes left")
        if result["seconds"] > SECONDS + MEASURE_SECONDS + TOLERATED:
            found.append(f"{when}{result['seconds']:.0f} s")
    if not second.get("changed") and "problem" not in second:
        found.append("next process: not rewritten")
    keys = {result.get("plan_key") for result in results}
    if len(keys) > 1:
        found.append(f"{len(keys)} keys of one plan")
    return found


def run(scenario: Scenario) -> list[str]:
    """A row of the table; the last cell has what is wrong, and is empty otherwise."""
    subject = list(scenario.arguments[:2]) if scenario.arguments[:1] == ("--subject",) else []
    with tempfile.TemporaryDirectory(prefix="eqsat-faults-") as name:
        folder = Path(name)
        clean = Scenario("", "")
        if scenario.warm:
            start(clean, folder, *subject)
        with scenario.around(folder), ThreadPoolExecutor(scenario.processes) as threads:
            arguments = ["--fault", scenario.fault, *scenario.arguments]
            futures = [threads.submit(start, scenario, folder, *arguments) for _ in range(scenario.processes)]
            results = [future.result(LIMIT_S * 2) for future in futures]
        second = start(clean, folder, *subject)
    first = results[0]
    lines = first.get("lines") or [""]
    row = [scenario.name, scenario.findings, f"{max(r.get('seconds', 0.0) for r in results):.1f}"]
    return [
        *row,
        "yes" if first.get("changed") else "no",
        lines[0][:90],
        "; ".join(problems(scenario, results, second)),
    ]
