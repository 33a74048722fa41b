"""The process of a scenario of `bench.trust.faults`: meets a fault, plans a small graph, and prints the outcome."""

from __future__ import annotations

import argparse
import json
import os
import pwd
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

SECONDS, MEASURE_SECONDS = 4.0, 2.0
LONGEST = 4.0  # s that a planning takes
TOLERATED = 10.0  # s beyond the seconds of the options


def children() -> list[int]:
    """The processes that this one started and that are there."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.append(int(stat.parent.name))
    return found


def signalling(number: int, times: int, seed: int) -> None:
    """Send a signal to each worker at a random moment of its life, at most so many ``times``."""
    draw = random.Random(seed)

    def send() -> None:
        seen: set[int] = set()
        while len(seen) < times:
            for process in set(children()) - seen:
                time.sleep(draw.choice((0.0, 0.05, 0.3, 0.6, 1.0)))
                seen.add(process)
                try:
                    os.kill(process, number)
                except ProcessLookupError:
                    continue
            time.sleep(0.01)

    threading.Thread(target=send, daemon=True).start()


def interpreter(text: str) -> None:
    """Workers are started with a script."""
    script = Path(os.environ["TORCH_EQSAT_CACHE_DIR"]) / "python"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    sys.executable = str(script)


def nameless() -> None:
    """A user without a name and a home, before anything of ours is imported."""
    for name in ("HOME", "XDG_CACHE_HOME", "TORCH_EQSAT_CACHE_DIR"):
        os.environ.pop(name, None)

    def unknown(user: int) -> Any:
        raise KeyError(user)

    pwd.getpwuid = unknown


def busy() -> None:
    """No kernel can be timed."""
    from torch_eqsat.cost.measure import kernels
    from torch_eqsat.errors import MeasurementError

    def measure(kernel: Any, timer: Any) -> Any:
        raise MeasurementError("the machine is busy")

    kernels.measure = measure


def interrupting(seed: int) -> None:
    """Ctrl-C in the search."""
    from torch_eqsat.search.worker.client import WorkerClient

    worker: Any = WorkerClient
    ask = worker._answer

    def watched(*arguments: Any) -> Any:
        threading.Timer(random.Random(seed).choice((0.0, 0.01)), os.kill, (os.getpid(), signal.SIGINT)).start()
        worker._answer = ask
        return ask(*arguments)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    worker._answer = watched


def at_a_moment(number: int, seed: int, *, workers: bool) -> None:
    """Send a signal at any moment of the planning, to all ``workers`` or to this process."""
    moment = random.Random(seed).uniform(0.0, LONGEST)

    def send() -> None:
        time.sleep(moment)
        for process in children() if workers else [os.getpid()]:
            with suppress(ProcessLookupError):
                os.kill(process, number)

    if not workers:
        signal.signal(number, signal.default_int_handler)
    threading.Thread(target=send, daemon=True).start()


FAULTS: dict[str, Callable[[int], Any]] = {
    "none": lambda seed: None,
    "killed": lambda seed: signalling(signal.SIGKILL, 1, seed),
    "killed again": lambda seed: signalling(signal.SIGKILL, 99, seed),
    "stopped": lambda seed: signalling(signal.SIGSTOP, 99, seed),
    "not reading": lambda seed: interpreter("exec sleep 1000"),
    "printing": lambda seed: None,  # by the environment
    "missing": lambda seed: setattr(sys, "executable", "/nowhere/python"),
    "none at all": lambda seed: setattr(sys, "executable", None),
    "true": lambda seed: setattr(sys, "executable", "/bin/true"),
    "yes": lambda seed: interpreter("exec yes"),
    "busy": lambda seed: busy(),
    "interrupt": interrupting,
    "killed at a moment": lambda seed: at_a_moment(signal.SIGKILL, seed, workers=True),
    "stopped at a moment": lambda seed: at_a_moment(signal.SIGSTOP, seed, workers=True),
    "interrupted at a moment": lambda seed: at_a_moment(signal.SIGINT, seed, workers=False),
    "no home": lambda seed: nameless(),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.trust.fault_child", description=__doc__)
    parser.add_argument("--fault", choices=FAULTS, default="none")
    parser.add_argument("--subject", default="linears")
    parser.add_argument("--memory-bytes", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.fault == "no home":
        nameless()
    import torch

    from bench.trust.fault_subjects import Planner
    from torch_eqsat.options import Options

    torch.set_num_threads(1)
    planner = Planner(given.subject)
    options = Options(seconds=SECONDS, measure_seconds=MEASURE_SECONDS)
    if given.memory_bytes:
        options = replace(options, memory_bytes=given.memory_bytes)
    start = time.monotonic()
    try:
        FAULTS[given.fault](given.seed)
        result = planner.plan(options).as_dict()
    except KeyboardInterrupt:  # the user's to handle
        result = {"error": 0.0, "lines": [], "seconds": time.monotonic() - start, "changed": False, "plan_key": ""}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(json.dumps({**result, "wrong": not result["error"] <= 1e-4, "children": len(children())}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
