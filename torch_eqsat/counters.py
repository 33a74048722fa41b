"""Counts whatever is timed in this process, so that a test can show where nothing is."""

from __future__ import annotations

from torch._dynamo.utils import counters

COUNTERS = "eqsat_mcts"
"""Our section of the counters of torch.compile."""


def count_timing(name: str) -> None:
    """Note that something was timed: a ``kernel`` or a ``graph``. ``torch.compiler.reset()`` forgets it."""
    counters[COUNTERS][f"timed_{name}s"] += 1


def count_transient() -> None:
    """Note a graph that was decided under a failure that may pass: its plan is not kept."""
    counters[COUNTERS]["transient"] += 1


def count_refused_sizes() -> None:
    """Note a graph with symbolic sizes whose rewriting did not hold for all of them."""
    counters[COUNTERS]["refused_sizes"] += 1


def timings() -> int:
    """How often a kernel or a graph was timed since the last ``torch.compiler.reset()``."""
    return sum(n for name, n in counters.get(COUNTERS, {}).items() if name.startswith("timed_"))
