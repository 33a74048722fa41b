"""Shares out what a search may spend among the regions of a graph."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass


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


@dataclass(frozen=True, slots=True)
class SearchStatistics:
    """How a search went: why it stopped, playouts, the largest e-graph (e-nodes), and whether it was interrupted, so
    that another try may find more (``transient``)."""

    stop: str
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
