"""The cases as a pytest-benchmark suite: ``make bench``.

A case is timed by the runner, in processes of its own, when its first test asks; pytest-benchmark then gets the samples
through a clock that stands still but for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from bench.models.cases import Case
from bench.speed import report

if TYPE_CHECKING:
    from bench.speed.conftest import Measurements


class ReplayClock:
    """A timer in seconds that advances by one sample whenever ``advance`` is called."""

    def __init__(self) -> None:
        self._now = 0.0
        self._steps: Iterator[float] = iter(())

    def __call__(self) -> float:
        return self._now

    def load(self, samples_ms: Sequence[float]) -> None:
        """Start over with these samples."""
        self._now = 0.0
        self._steps = iter(samples_ms)

    def advance(self) -> None:
        """Let the next sample pass."""
        self._now += next(self._steps) / 1e3


CLOCK = ReplayClock()


@pytest.mark.benchmark(timer=CLOCK)
def test_case(case: Case, variant: str, measured: Measurements, benchmark: Any) -> None:
    """The variant computes what eager computes; its times are in the table."""
    outcome = measured[case][variant]
    benchmark.group = case.name
    benchmark.extra_info.update(outcome.ready)
    CLOCK.load(outcome.samples_ms)
    benchmark.pedantic(CLOCK.advance, rounds=len(outcome.samples_ms))
    assert outcome.ready["error"] <= report.TOLERANCE
