"""Equal work timed side by side: candidates run in turn, so that a disturbance of the machine meets all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch_eqsat.cost.timer import Call, Clock, sample_ms, summary

# The samples are cut into blocks, and a candidate is faster only if it is in each of them: of two that are equally
# fast one wins all six by chance in 3 % of the contests. Unlike a spread this needs no model of the noise.
BLOCKS = 6
FEWEST_ROUNDS = 1
MOST_ROUNDS = 60
# A low quantile, as for kernels: whatever disturbs a graph makes it slower.
QUANTILE = 0.2
SAMPLE_MS = 1.0


@dataclass(frozen=True)
class Contest:
    """The times of candidates: ``ms[i]`` is that of candidate i over all rounds, ``blocks[i]`` its times (ms) in each
    block of rounds."""

    ms: tuple[float, ...]
    blocks: tuple[tuple[float, ...], ...]

    def faster(self, candidate: int, other: int) -> bool:
        """Whether ``candidate`` was faster than ``other`` in every block.

        >>> Contest((1.0, 2.0), ((1.0, 1.1), (2.0, 1.0))).faster(0, 1)
        False
        """
        return all(a < b for a, b in zip(self.blocks[candidate], self.blocks[other], strict=True))


def contest(calls: Sequence[Call], seconds: float, clock: Clock, wall: Clock) -> Contest:
    """Time ``calls`` in turn for about ``seconds`` by ``clock`` (s); ``wall`` (s) says how long it took.

    Each call runs once before, unmeasured. A short one is repeated within a sample of about :data:`SAMPLE_MS`. All
    get at least ``BLOCKS * FEWEST_ROUNDS`` samples, whatever ``seconds`` says.
    """
    for call in calls:
        call()
    start = wall()
    repeats = [max(1, math.ceil(SAMPLE_MS / max(sample_ms([call], 1, clock), 1e-3))) for call in calls]
    once = max(wall() - start, 1e-9)  # of all calls, which is less than a round where calls are repeated
    samples: list[list[list[float]]] = [[[] for _ in range(BLOCKS)] for _ in calls]
    for block in range(BLOCKS):
        end = start + once + seconds * (block + 1) / BLOCKS
        rounds = 0
        while rounds < FEWEST_ROUNDS or (rounds < MOST_ROUNDS and wall() < end):
            # Every other round backwards: what runs second finds the caches as the first one left them.
            order = range(len(calls)) if rounds % 2 == 0 else range(len(calls) - 1, -1, -1)
            for i in order:
                samples[i][block].append(sample_ms([calls[i]], repeats[i], clock))
            rounds += 1
    return Contest(
        tuple(summary([ms for block in blocks for ms in block], QUANTILE).ms for blocks in samples),
        tuple(tuple(summary(block, QUANTILE).ms for block in blocks) for blocks in samples),
    )
