"""The search worker: a process without torch, under a limit of its address space.

egglog has no limits inside a run and aborts its process when memory ends, so it never runs in the user's process.
Messages are pickles between this process and its parent alone, each after its length in eight bytes.
"""

from __future__ import annotations

import pickle
import resource
import struct
import sys
from typing import Any, BinaryIO

from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.rules.law import EXACTNESS, Law
from torch_eqsat.search.environment import Environment, SearchStatistics
from torch_eqsat.search.strategies import run_strategy
from torch_eqsat.search.messages import Failure, Outcome, RepriceRequest, SearchRequest


def write_message(stream: BinaryIO, message: Any) -> None:
    """Send one message."""
    payload = pickle.dumps(message)
    stream.write(struct.pack("<Q", len(payload)) + payload)
    stream.flush()


def read_message(stream: BinaryIO) -> Any:
    """Receive one message; None at the end of the stream."""
    header = stream.read(8)
    if len(header) < 8:
        return None
    return pickle.loads(stream.read(struct.unpack("<Q", header)[0]))


class Worker:
    """Answers requests; keeps the last environment for repricing."""

    def __init__(self) -> None:
        self.environment: Environment | None = None
        self.statistics = SearchStatistics("not started", 0, 0)

    def answer(self, request: SearchRequest | RepriceRequest) -> Outcome:
        if isinstance(request, SearchRequest):
            return self._search(request)
        assert self.environment is not None, "nothing to price again: search first"
        self.environment.pricing.measured.update(request.prices)
        self.environment.pricing.missing.clear()
        self.environment.reprice(request.milp_seconds, request.original)
        return self._outcome(self.environment)

    def _search(self, request: SearchRequest) -> Outcome:
        pricing = Pricing(request.frozen, request.device, request.threads, measured=dict(request.prices))
        laws = allowed_laws(request.exactness, request.disabled)
        if self.environment is not None:
            self.environment.close()
        environment = Environment(request.task, laws, pricing, request.limits, request.seed)
        self.environment = environment
        self.statistics = run_strategy("mcts", environment)
        return self._outcome(environment)

    def _outcome(self, environment: Environment) -> Outcome:
        statistics = self.statistics
        return Outcome(
            environment.best,
            environment.base_cost,
            environment.lower_bound,
            environment.unmeasured(),
            tuple(environment.pricing.missing.values()),
            statistics.stop,
            statistics.simulations,
            statistics.nodes,
            environment.curve[-1][0],
            tuple(environment.curve),
        )


def allowed_laws(exactness: str, disabled: frozenset[str]) -> list[Law]:
    """The catalogue's laws of tiers up to ``exactness``, without those disabled by name or family."""
    from torch_eqsat.rewrites import catalogue

    tiers = EXACTNESS[: EXACTNESS.index(exactness) + 1]
    return [law for law in catalogue() if law.exactness in tiers and not disabled & {law.name, law.family}]


def main() -> None:
    """Serve requests from standard input until it ends."""
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing but messages may reach the parent
    worker = Worker()
    while (request := read_message(requests)) is not None:
        try:
            answer: Outcome | Failure = worker.answer(request)
        except KeyboardInterrupt:
            return
        except BaseException as error:  # egglog's PanicException is no Exception
            answer = Failure(f"{type(error).__name__}: {error}")
        write_message(answers, answer)


if __name__ == "__main__":
    main()
