"""Extraction: the choice of one e-node for each needed e-class with the least total cost."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from enum import StrEnum

from torch_eqsat.extract.greedy import greedy, greedy_choices
from torch_eqsat.extract.local_search import local_search
from torch_eqsat.extract.mandatory import mandatory_bound
from torch_eqsat.extract.problem import (
    Choices,
    ExtractionProblem,
    dag_cost,
    restrict,
)
from torch_eqsat.extract.reduce import ReducedProblem, reduce_problem

_TOLERANCE = 1e-9  # ms; smaller differences are rounding
_SOLVER_TOLERANCE = 1e-6  # of the exact solver, in ms


class Ending(StrEnum):
    """Why an extraction ended."""

    DEADLINE = "deadline"
    LOCAL_OPTIMUM = "local optimum"
    OPTIMAL = "optimal"


@dataclass(frozen=True, slots=True)
class Extraction:
    """An extraction, and how it was found."""

    choices: Choices
    """e-class -> e-node, for the e-classes that the roots need."""
    cost: float
    """DAG cost in ms."""
    lower_bound: float
    """No extraction costs less than this many ms; 0 without exact extraction."""
    seconds: float
    """Time taken."""
    stop: Ending
    """Why the search ended."""


def extract(
    problem: ExtractionProblem,
    *,
    incumbent: Choices | None = None,
    deadline: float | None = None,
    seed: int = 0,
    rounds: int = 0,
    milp_seconds: float = 0.0,
    most_flips: float = math.inf,
) -> Extraction:
    """Find a cheap extraction, never worse than the incumbent, by the deadline.

    ``deadline`` is a time.monotonic() value; the set-up, about 10 µs per e-node, is not interrupted. After a local
    optimum, annealing follows until ``rounds`` rounds in a row gain nothing; ``most_flips`` bounds the work of both.
    ``milp_seconds`` > 0 adds a search for the
    exact optimum and a lower bound, in the time that is left. The result depends only on the arguments, unless the
    deadline or ``milp_seconds`` end the search. Raises NoExtractionError if a root has no acyclic computation,
    InvalidExtractionError if the incumbent is not valid.
    """
    start = time.monotonic()
    choices = greedy(problem) if incumbent is None else incumbent
    best = Extraction(choices, dag_cost(problem, choices), 0.0, 0.0, Ending.DEADLINE)
    if deadline is None or start < deadline:
        reduced = reduce_problem(problem)
        found = local_search(
            reduced.problem,
            reduced.reduce_choices(choices),
            deadline=deadline,
            seed=seed,
            rounds=rounds,
            most_flips=most_flips,
        )
        best = _better(problem, best, reduced.restore_choices(found.choices))
        best = replace(best, stop=Ending.LOCAL_OPTIMUM if found.finished else Ending.DEADLINE)
        best = _solve(reduced, best, deadline, milp_seconds)
    return replace(best, choices=restrict(problem, best.choices), seconds=time.monotonic() - start)


def lower_bound(problem: ExtractionProblem, choices: Choices) -> float:
    """A lower bound (ms) on all extractions, cheap and not tight. ``choices`` are a known extraction."""
    reduced = reduce_problem(problem)
    known = reduced.reduce_choices(choices)
    settled = greedy_choices(reduced.problem).choices
    return mandatory_bound(reduced.problem, settled, known, dag_cost(reduced.problem, known))


def _solve(reduced: ReducedProblem, start: Extraction, deadline: float | None, milp_seconds: float) -> Extraction:
    seconds = milp_seconds if deadline is None else min(milp_seconds, deadline - time.monotonic())
    if seconds <= 0:
        return start
    from torch_eqsat.extract.milp import improve_by_milp  # scipy's solvers take a quarter of a second to import

    found = improve_by_milp(reduced.problem, reduced.reduce_choices(start.choices), seconds)
    best = _better(reduced.original, start, reduced.restore_choices(found.choices))
    is_optimal = found.lower_bound >= best.cost - _SOLVER_TOLERANCE
    stop = Ending.OPTIMAL if is_optimal else start.stop
    return replace(best, lower_bound=min(found.lower_bound, best.cost), stop=stop)


def _better(problem: ExtractionProblem, start: Extraction, choices: Choices) -> Extraction:
    """The new choices if they cost less, else the start, so that nothing changes without a gain."""
    cost = dag_cost(problem, choices)
    return replace(start, choices=choices, cost=cost) if cost < start.cost - _TOLERANCE else start
