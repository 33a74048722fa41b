"""What a search may spend, how that is shared out among the regions of a graph, and why a search stopped."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Limits:
    """``nodes`` bounds each e-graph (e-nodes), ``seconds`` the search, ``simulations`` the playouts, and
    ``exact_seconds`` the exact extraction at its end. ``work`` bounds the work of the search (see `Environment`) in
    place of seconds: with it extractions end by themselves too, and the answer is equal in every process."""

    nodes: int = 20_000
    seconds: float = 20.0
    simulations: int = 64
    exact_seconds: float = 0.0
    work: float = math.inf


class StopReason(StrEnum):
    """Why a search stopped."""

    SATURATED = "saturated"
    """No law changes anything any more."""
    EXHAUSTED = "exhausted"
    """All moves were made, or all programs looked at."""
    NO_IMPROVEMENT = "no improvement"
    """It gained nothing for as long as it is patient."""
    HINT = "as in an equal graph of other sizes"
    """The laws that made the best program of that graph gained as much."""
    TIME = "time"
    """It reached the limit of time or of work."""
    NODES = "nodes"
    """It reached the limit of nodes."""
    SIMULATIONS = "simulations"
    """It reached the limit of playouts."""
    PROGRAMS = "programs"
    """Substitution took as many programs as there may be playouts."""
    ACTIONS = "actions"
    """The paper's search committed to as many actions as it may."""
    COST = "cost"
    """The paper's search came to a program that costs almost nothing."""
    NOTHING_TO_DO = "nothing to do"
    """Nothing was searched."""
    RUNNING = "running"
    """It goes on; this is a report on the way."""
    INTERRUPTED = "interrupted"
    """The user interrupted it."""
    OUT_OF_MEMORY = "out of memory"
    """Its process had no memory left."""
    LATE = "late"
    """Its answer did not come in time."""
    FAILED = "failed"
    """Its worker died, could not be reached, or met an error."""


@dataclass(frozen=True, slots=True)
class SearchStatistics:
    """How a search went: why it stopped, playouts, the largest e-graph (e-nodes), and whether it was interrupted, so
    that another try may find more (``transient``)."""

    stop: StopReason
    simulations: int
    nodes: int
    transient: bool = False


def playouts(total: int, weight: float, all_weights: float) -> int:
    """A region's share of the playouts of the whole graph, at least one: what must not grow with the graph."""
    return max(1, round(total * weight / all_weights)) if all_weights > 0 else total


class Budget:
    """Seconds shared by regions in proportion to their weights: what one leaves, those after it have.

    ``workers`` of them run at a time. A share is taken when its turn comes.
    """

    def __init__(self, seconds: float, weights: Sequence[float], workers: int = 1) -> None:
        self._end = time.monotonic() + seconds
        self._weight_left = sum(weights)
        self._workers = workers
        self._lock = threading.Lock()

    def share(self, weight: float) -> float:
        """The seconds for the region of ``weight``, which is taken off what is left."""
        with self._lock:
            left = max(0.0, self._end - time.monotonic())
            part = min(1.0, self._workers * weight / self._weight_left) if self._weight_left > 0 else 1.0
            self._weight_left -= weight
            return left * part
