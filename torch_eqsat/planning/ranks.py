"""Ranks of torch.distributed plan together: rank 0 plans for all, and all rewrite a graph alike or none does.

Ranks that plan for themselves time kernels for themselves, and take different programs, which round differently. They
meet in the store of the default process group, once for each graph in the order in which they compile them. No
collective is used, so a rank that does not come delays the others and does not hang them: a rank that waits too long
decides that the graph stays as it is. An atomic operation of the store makes each decision once, for all ranks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch.distributed as dist

from torch_eqsat.errors import PlanError
from torch_eqsat.planning.plans.plan import Planned
from torch_eqsat.planning.plans.plan_file import seal, unseal

MEET_SECONDS = 60.0  # between the first rank at a graph and the last one
POLL_SECONDS = 0.02
NONE, GO, LEFT = b"none: ", b"go", b"left"
_OVER = "torch_eqsat over"


class Meeting:
    """What the ranks decide about one graph. ``reason`` says why it is left as it is, once that is known."""

    def __init__(self, store: Any, rank: int, ranks: int, seconds: float) -> None:
        self._store, self._rank, self._ranks = store, rank, ranks
        self._seconds = seconds
        self._plan_is_out = False
        self._voted = False
        self.reason = "the ranks did not agree"

    def share(self, digest: str, make: Callable[[], Planned]) -> Planned | None:
        """The plan that rank 0 makes, or None where the graph is to be left as it is: a rank did not come in time, has
        another graph (by its ``digest``), or rank 0 failed."""
        self._store.set(f"digest {self._rank}", digest)
        if self._rank == 0:
            planned = make() if self._is_one_graph(digest) else None
            self._publish(NONE + self.reason.encode() if planned is None else seal(digest, planned.plan))
            return planned
        told = self._wait(["plan"], MEET_SECONDS + self._seconds)
        if told is None or told[0].startswith(NONE):
            self.reason = told[0].removeprefix(NONE).decode() if told else self._give_up("rank 0 has no plan")
            return None
        try:
            return Planned(unseal(digest, told[0]))
        except PlanError as error:  # of rank 0's graph, or cut short
            self.reason = f"the plan of rank 0 cannot be used: {error}"
            return None

    def agree(self, ready: bool = True) -> bool:
        """Whether all ranks are ``ready`` to rewrite, which is then done: the answer is the same on all of them."""
        self._voted = True
        self._store.set(f"vote {self._rank}", GO if ready else LEFT)
        votes = (
            self._wait([f"vote {rank}" for rank in range(self._ranks)], MEET_SECONDS, enough=LEFT) if ready else None
        )
        wanted = GO if votes and all(vote == GO for vote in votes) else LEFT
        decision = self._store.compare_set("decision", "", wanted)
        if decision != GO:
            self.reason = "another rank leaves it as it is"
        return bool(decision == GO)

    def leave(self) -> None:
        """Let no other rank wait for what does not come from this one any more."""
        if self._rank == 0 and not self._plan_is_out:
            self._publish(NONE + b"rank 0 could not plan it")
        if not self._voted:
            self.agree(ready=False)

    def _publish(self, told: bytes) -> None:
        self._plan_is_out = True
        self._store.set("plan", told)

    def _is_one_graph(self, digest: str) -> bool:
        digests = self._wait([f"digest {rank}" for rank in range(self._ranks)], MEET_SECONDS)
        if digests is None:
            self._give_up("a rank did not come in time")
        elif any(other != digest.encode() for other in digests):
            self.reason = "the ranks have different graphs"
            return False
        return digests is not None

    def _give_up(self, reason: str) -> str:
        """Ranks that once did not meet compile different things: no later graph waits for them."""
        self.reason = f"{reason}; graphs are left as they are from now on"
        self._store.set(_OVER, self.reason)
        return self.reason

    def _wait(self, keys: Sequence[str], seconds: float, enough: bytes | None = None) -> list[bytes] | None:
        """The values of ``keys``, or None when some are not there in time; one that is ``enough`` is not waited for."""
        end = time.monotonic() + min(seconds, _longest(self._store))
        found: dict[str, bytes] = {}
        while True:
            for key in keys:
                if key not in found and self._store.check([key]):
                    found[key] = self._store.get(key)
            if len(found) == len(keys) or enough in found.values():
                return [found.get(key, b"") for key in keys]
            if time.monotonic() > end or self._store.check([_OVER]):
                return None
            time.sleep(POLL_SECONDS)


def is_alone() -> bool:
    """Whether there are no other ranks."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1


@contextmanager
def meet(seconds: float) -> Iterator[Meeting | None]:
    """A meeting of all ranks about their next graph, for which rank 0 may plan so many ``seconds``; None where there is
    one process. However the block ends, other ranks are not kept waiting."""
    if is_alone():
        yield None
        return
    store, rank = dist.distributed_c10d._get_default_store(), dist.get_rank()
    number = store.add(f"torch_eqsat graphs {rank}", 1)
    meeting = Meeting(_Named(store, f"torch_eqsat {number} "), rank, dist.get_world_size(), seconds)
    try:
        yield meeting
    finally:
        with suppress(RuntimeError):  # the store is gone with rank 0
            meeting.leave()


class _Named:
    """A store under a prefix, but for what all meetings share."""

    def __init__(self, store: Any, prefix: str) -> None:
        self.store, self._prefix = store, prefix

    def _name(self, key: str) -> str:
        return key if key == _OVER else self._prefix + key

    def set(self, key: str, value: str | bytes) -> None:
        self.store.set(self._name(key), value)

    def get(self, key: str) -> bytes:
        return bytes(self.store.get(self._name(key)))

    def check(self, keys: Sequence[str]) -> bool:
        return bool(self.store.check([self._name(key) for key in keys]))

    def compare_set(self, key: str, expected: str, value: bytes) -> bytes:
        return bytes(self.store.compare_set(self._name(key), expected, value.decode()))


def _longest(store: Any) -> float:
    """The longest wait (s): well below the time after which the process group itself gives up."""
    return float(store.store.timeout.total_seconds() / 3)
