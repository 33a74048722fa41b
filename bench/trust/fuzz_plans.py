"""Damages stored plans and tables of kernel times, and looks whether any is used and wrong, crashes, or hangs.

``python -m bench.trust.fuzz_plans --subject S --count N``: each try plans a small graph with a mutated file in the
cache folder that the environment names; what became of them is printed as one JSON object. Half of the mutated plans
have a digest that fits them: those are for the checks after the digest, of structure and by running both graphs.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any
from unittest import mock

import torch

from bench.trust.fault_subjects import Lines, Planner
from bench.trust.plan_edits import EDITS, damaged
from torch_eqsat.cost.calibration import calibration_of
from torch_eqsat.cost.folder import forget_trouble
from torch_eqsat.cost.measure.kernels import context_of
from torch_eqsat.cost.table import close_tables, default_path, open_table
from torch_eqsat.options import Options
from torch_eqsat.planning.plans.plan_file import plan_to_json, seal_json
from torch_eqsat.planning.plans.plan_store import load_plan, plan_path

NAMES = ("linears", "attention", "chain")
OPTIONS = Options(seconds=4.0, measure_seconds=4.0, min_saving=0.0)
HANG_S = 60  # a try takes some milliseconds


class RefusedError(Exception):
    """Stands for the search that follows when a stored plan is refused."""


class HangError(BaseException):
    """A try took too long."""


def _refuse(*_: Any) -> Any:
    raise RefusedError


class Fuzz:
    """Tries on one subject, whose good plan is in the cache folder that the environment names."""

    def __init__(self, name: str, draw: random.Random) -> None:
        self.name, self._draw = name, draw
        self._planner = Planner(name)
        first = self._planner.plan(OPTIONS)
        self._path, self._key = plan_path(first.plan_key), first.plan_key
        plan, self._raw = load_plan(first.plan_key), self._path.read_bytes()
        if plan is None or first.is_wrong or not first.changed:
            raise RuntimeError(f"{name} is not rewritten as it should be: {first}")
        self._plan = plan_to_json(plan)
        close_tables()
        with sqlite3.connect(default_path()) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
        self._table = default_path().read_bytes()

    def plan(self) -> tuple[str, str]:
        """One try with a mutated plan: the mutation, and what became of it."""
        if self._draw.random() < 0.5:
            what, raw = damaged(self._raw, self._draw)
        else:
            edit, plan = self._draw.choice(EDITS), json.loads(json.dumps(self._plan))
            what = edit.__name__.replace("_", " ")
            edit(plan, self._draw)
            try:
                raw = seal_json(self._key, plan)
            except Exception:  # no file can hold it
                return what, "refused"
        self._path.write_bytes(raw)
        try:
            return what, self._outcome()
        finally:
            self._path.unlink(missing_ok=True)

    def _outcome(self) -> str:
        lines = Lines()
        try:
            with mock.patch("torch_eqsat.planning.pipeline.search_regions", _refuse):
                result = self._planner.plan(OPTIONS)
        except RefusedError:
            result = None
        finally:
            lines.close()
        if len(lines.lines) > 1 or any("\n" in line for line in lines.lines):
            return f"LINES {lines.lines}"
        if result is None:
            return "refused" if lines.lines else "refused, no line"
        if result.is_wrong:
            return f"WRONG by {result.error:.2g}"
        return "right, rewritten" if result.changed else "right, as it was"

    def table(self) -> tuple[str, str]:
        """One try with a mutated table: it is read, and the program that is planned stays right."""
        what, raw = damaged(self._table, self._draw)
        self._put_table(raw)
        self._path.write_bytes(self._raw)
        try:
            outcome = self._outcome()
            table = open_table(context_of("cpu"))
            calibration_of(table)
            table.everything()
            return f"table: {what}", outcome
        finally:
            self._put_table(self._table)

    def _put_table(self, raw: bytes) -> None:
        close_tables()
        path = default_path()
        for other in path.parent.glob(f"{path.name}?*"):
            other.unlink()
        path.write_bytes(raw)


def guarded(attempt: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    """What a try gives, or that it crashed or hung."""

    def too_late(number: int, frame: FrameType | None) -> None:
        raise HangError

    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(HANG_S)
    try:
        return attempt()
    except HangError:
        return "any", "HANG"
    except Exception as error:
        return "any", f"CRASH {type(error).__name__}: {error}".partition("\n")[0][:200]
    finally:
        signal.alarm(0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.trust.fuzz_plans", description=__doc__)
    parser.add_argument("--subject", choices=NAMES, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(f"{options.subject} {options.seed}")
    fuzz = Fuzz(options.subject, draw)
    counts: Counter[str] = Counter()
    for number in range(options.count):
        forget_trouble()
        what, outcome = guarded(fuzz.table if number % 5 == 4 else fuzz.plan)
        counts[f"{what} | {outcome}"] += 1
    print(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
