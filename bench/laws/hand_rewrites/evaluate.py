"""Does the search find the rewrites that pay, and refuse those that do not?

Both modules go the public way: Dynamo, AOTAutograd, the backend's pass. Only the code generation is left out: the
graph runs as it is after the pass. ``python -m bench.laws.hand_rewrites.evaluate [NAME ...]`` prints a line a row.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from bench.laws.hand_rewrites.row import Row
from bench.laws.hand_rewrites.table import ROWS
from torch_eqsat import report as reports
from torch_eqsat.cost.kernel import Measurement
from torch_eqsat.cost.measure.batch import measure_many
from torch_eqsat.cost.measure.kernels import context_of
from torch_eqsat.cost.measure.pace import Pace
from torch_eqsat.cost.measure.timer import CpuTimer
from torch_eqsat.cost.table import Table
from torch_eqsat.laws.assumptions import PROPERTIES
from torch_eqsat.planning import found as finding
from torch_eqsat.planning.planner import Times
from torch_eqsat.planning.setting import Setting

SECONDS, MEASURE_SECONDS = 16.0, 10.0  # as the backend has by default
DETERMINISTIC_SECONDS = 0.25  # counted as work; each row is found by then
# Two measured programs that differ by less are the same one as far as the timer can tell.
TOLERANCE, RESOLUTION_MS = 1.02, 2e-4


@dataclass(frozen=True, slots=True)
class Verdict:
    """Predicted times (ms) of a row's original, its rewritten form and the best program found, and how it was found.

    ``folded`` counts terms of factory operators that the backend evaluated: their cost is not in ``base_ms``.
    """

    row: Row
    base_ms: float
    hand_ms: float
    best_ms: float
    folded: int
    decision: str
    error: float
    seconds: float
    stop: str
    laws: Counter[str] = field(default_factory=Counter)

    @property
    def priced(self) -> bool:
        """Whether the prices order the original and the rewritten form as the clock does."""
        if self.row.pays is None:
            return True
        return (self.hand_ms < self.base_ms or self.folded > 0) if self.row.pays else self.hand_ms > self.base_ms

    @property
    def limit_ms(self) -> float:
        """What the best program may cost."""
        return max(self.hand_ms * TOLERANCE, self.hand_ms + RESOLUTION_MS)

    @property
    def reached(self) -> bool:
        """For a row that pays: the search found the rewrite or better. For one that does not: it kept away from it."""
        if self.row.pays is None:
            return self.best_ms <= min(self.base_ms, self.limit_ms)
        if self.row.pays:
            return self.best_ms <= self.limit_ms
        return self.best_ms <= self.base_ms and self.best_ms < self.hand_ms

    def __str__(self) -> str:
        expected = {True: "found", False: "refused", None: "decided"}[self.row.pays]
        answer = "NOT PRICED" if not self.priced else expected if self.reached else f"NOT {expected}"
        laws = ", ".join(f"{name} x{count}" for name, count in self.laws.most_common())
        return (
            f"{self.row.name:28} {answer:12} {self.base_ms:9.4f} -> hand {self.hand_ms:9.4f}, "
            f"best {self.best_ms:9.4f} ms, "
            f"{self.stop}, {self.seconds:.1f} s; {self.decision}; {laws or 'no law'}"
        )


def evaluate(row: Row, *, deterministic: bool = False) -> Verdict:
    """Search the original and price the rewritten form, kernels being measured once for both, or read from the table
    alone where the answer has to be ``deterministic``. All that laws assume is granted, as the hand
    grants it: a block of its own has inputs of which nothing is known.

    ``error`` is the greatest difference of the rewritten graph's outputs from eager's, relative to the largest.
    """
    original, hand, inputs = row.build()
    options = {
        "eqsat.measure_seconds": MEASURE_SECONDS,
        "eqsat.deterministic": deterministic,
        "eqsat.assume": PROPERTIES,
        "eqsat.exactness": row.exactness,
        "freezing": row.frozen,
    }
    with torch.set_grad_enabled(row.trained):
        priced, _ = _compile(hand, inputs, {**options, "eqsat.seconds": 0.0, "eqsat.simulations": 1})
        start = time.monotonic()
        seconds = DETERMINISTIC_SECONDS if deterministic else SECONDS
        found, outputs = _compile(original, inputs, {**options, "eqsat.seconds": seconds})
        expected = _tuple(original(*inputs))
    return Verdict(
        row,
        base_ms=found.base_ms,
        hand_ms=priced.base_ms,
        best_ms=min(found.base_ms, found.best_ms),
        folded=found.folded,
        decision=found.decision,
        error=max(_error(a, b) for a, b in zip(outputs, expected, strict=True)),
        seconds=time.monotonic() - start,
        stop=", ".join(sorted({region.stop for region in found.regions})),
        laws=found.laws,
    )


def _tuple(value: Any) -> tuple[Tensor, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).detach().abs().max() / expected.detach().abs().max())


def _compile(
    module: nn.Module, inputs: tuple[Tensor, ...], options: dict[str, Any]
) -> tuple[reports.GraphReport, tuple[Tensor, ...]]:
    """The backend's report on the one graph of ``module``, and what the graph computes after the pass."""
    torch.compiler.reset()
    ours = {**options, "eqsat.cache": False, "eqsat.strict": True, "force_disable_caches": True}
    compiled = torch.compile(module, backend="eqsat_mcts_eager", options=ours, fullgraph=True, dynamic=False)
    outputs = _tuple(compiled(*inputs))
    (report,) = reports.last_reports()
    return report, outputs


@contextmanager
def _timing_all() -> Iterator[None]:
    """A deterministic search reads times of kernels from the table alone; in here the table takes those it lacks."""

    def times(setting: Setting, table: Table, failed: dict[str, str]) -> Times:
        return lambda kernels, until: measure_many(
            kernels, CpuTimer(), table, math.inf, failed=failed, pace=Pace(table.paces_ms())
        )

    with mock.patch.object(finding, "_times", times):
        yield


RECORDED = Path(__file__).with_name("kernel_times.json")
"""Times (ms) of all kernels that the searches of the rows meet, and the coefficients of the machine that took them:
tests decide by these. Four of them (of cold weights with 192 channels a group) were added by hand: taken on another
machine, and scaled by 0.62, the median ratio of three kernels that both have timed. ``--record`` replaces them."""


def main() -> None:
    """Print a line for each row named, or for all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="NAME", help=", ".join(ROWS))
    parser.add_argument("--record", action="store_true", help=f"time all kernels anew and write {RECORDED.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() if arguments.record else nullcontext() as folder:
        if folder:
            os.environ["TORCH_EQSAT_CACHE_DIR"] = folder
        with _timing_all() if folder else nullcontext():
            for name in arguments.rows or ROWS:
                print(evaluate(ROWS[name], deterministic=arguments.record), flush=True)
        if folder:
            with Table(context_of("cpu")) as table:
                times = {key: round(found.ms, 6) for key, found in table.everything().items()}
                recorded = {"coefficients": table.coefficients(), "kernels": times}
            RECORDED.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


def use_recorded_times(path: Path = RECORDED) -> None:
    """Put recorded times into this machine's table, as if they had been taken here."""
    recorded = json.loads(path.read_text(encoding="utf-8"))
    with Table(context_of("cpu")) as table:
        table.store_many({key: Measurement(ms, 0.0, 1) for key, ms in recorded["kernels"].items()})
        table.store_coefficients(recorded["coefficients"], 0.0, 1)


if __name__ == "__main__":
    main()
