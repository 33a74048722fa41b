"""What planning one graph has taken so far: the clock that the planner budgets by, and what the report says of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field


@dataclass
class Spent:
    """Seconds of searching (of all searches together), of measuring kernels and of judging. ``kernels_measured`` counts
    the kernels that were measured; ``kernels_left`` those that the search met and that have no time; ``kernels_failed``
    gives the reason for each whose timing failed temporarily, by key."""

    search_seconds: float = 0.0
    measure_seconds: float = 0.0
    judge_seconds: float = 0.0
    kernels_measured: int = 0
    kernels_left: int = 0
    kernels_failed: dict[str, str] = field(default_factory=dict)

    def measuring(self) -> AbstractContextManager[None]:
        """Count the time of a block as time of measuring."""
        return self._counted("measure_seconds")

    def judging(self) -> AbstractContextManager[None]:
        """Count the time of a block as time of judging."""
        return self._counted("judge_seconds")

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.monotonic() - start)
