"""Searches in this process, for sweeps over many small graphs: plain ones, and programs drawn at random costs."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

from torch_eqsat.extract.extract import extract
from torch_eqsat.ir.program import Task
from torch_eqsat.planning import found as finding
from torch_eqsat.planning.planner import Planner
from torch_eqsat.search.environment import Environment
from torch_eqsat.search.limits import Limits, StopReason
from torch_eqsat.search.partition import Partition
from torch_eqsat.search.strategies.saturation import saturate
from torch_eqsat.search.worker.fallback import gave_up
from torch_eqsat.search.worker.messages import Outcome, Request
from torch_eqsat.search.worker.pool import WorkerPool
from torch_eqsat.search.worker.process import allowed_laws, answer

NODES = 500
SECONDS = 2.0  # for one e-graph


class InProcessPool(WorkerPool):
    """Answers in this process, one request after the other."""

    def __init__(self, memory_bytes: int, executor: Any = None, workers: int | None = None) -> None:
        super().__init__(memory_bytes, None, 1)

    def map(self, requests: Sequence[Callable[[], Request]], until: float) -> list[Outcome]:
        """The answers, in order; ``until`` is no matter where they end by themselves."""
        return [answer(make(), lambda _: None) for make in requests]


class DrawingPlanner(Planner):
    """In place of the best program of each e-graph, one that is best at random costs: whatever laws make is run."""

    seed = 0

    def search(self, partition: Partition) -> dict[str, Outcome]:
        """A drawn program of each group."""
        return {group: self._draw(partition.task_of(group), n) for n, group in enumerate(partition.groups)}

    def _draw(self, task: Task, number: int) -> Outcome:
        pricing, options = self.pricing(), self.setting.options
        rng = random.Random(f"{self.seed} {number}")
        laws = allowed_laws(options.exactness, frozenset(options.disable))
        limits = Limits(NODES, SECONDS, 1)
        environment = Environment(task, laws, pricing, limits, options.seed, parameters=self.parameters)
        try:
            saturate(environment)
            extractable = environment.extractable()
        finally:
            environment.close()
        problem = extractable.problem(pricing)
        drawn = replace(problem, node_cost=[rng.random() for _ in problem.node_cost])
        deadline = time.monotonic() + SECONDS
        found = extract(drawn, incumbent=extractable.original(), deadline=deadline, seed=self.seed)
        base = gave_up_cost(self, task)
        program = extractable.program(found.choices, base / 2)  # it is to be taken
        return Outcome(
            program=program,
            base_cost=base,
            lower_bound=0.0,
            unmeasured=(),
            missing=(),
            stop=StopReason.NOTHING_TO_DO,
            simulations=1,
            nodes=len(drawn.node_cost),
            seconds=0.0,
            curve=(),
        )


def gave_up_cost(planner: Planner, task: Task) -> float:
    """The cost (ms) of the program as captured, above 0."""
    request = planner._request(task, 1.0, 1.0, _NO_BUDGET)
    return max(gave_up(request, StopReason.NOTHING_TO_DO).base_cost, 1e-6)


class _NoBudget:
    def share(self, weight: float) -> float:
        return SECONDS


_NO_BUDGET: Any = _NoBudget()


@contextlib.contextmanager
def searching_here(drawn_seed: int | None) -> Iterator[None]:
    """Compilations within search in this process; with a seed, programs are drawn instead of searched for."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(finding, "WorkerPool", InProcessPool))
        if drawn_seed is not None:
            stack.enter_context(mock.patch.object(finding, "Planner", DrawingPlanner))
            stack.enter_context(mock.patch.object(DrawingPlanner, "seed", drawn_seed))
        yield


def brief(error: Exception) -> str:
    """One line on an error; what a compiler wraps is named itself."""
    inner = getattr(error, "inner_exception", error)
    return f"{type(inner).__name__}: {inner}".partition("\n")[0][:300]
