"""The search worker: a process without torch, under a limit of its address space.

egglog has no limits inside a run and aborts its process when memory ends, so it never runs in the user's process.
Messages are pickles between this process and its parent alone, each after its length in eight bytes. Each better
program is sent at once, so that what was found outlives the worker.
"""

from __future__ import annotations

import pickle
import resource
import struct
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

from torch_eqsat.rules.law import EXACTNESS, Law
from torch_eqsat.rules.shipping import receive
from torch_eqsat.search.environment import Environment, SearchStatistics, unmeasured
from torch_eqsat.search.messages import Failure, Outcome, Progress, RepriceRequest, SearchRequest
from torch_eqsat.search.program import captured_program
from torch_eqsat.search.strategies import run_strategy

PROGRESS_SECONDS = 0.2  # between two reports of a better program


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


def answer(request: SearchRequest | RepriceRequest, report: Callable[[Outcome], None]) -> Outcome:
    """Answer a request; ``report`` is given what was found so far."""
    return _search(request, report) if isinstance(request, SearchRequest) else _reprice(request)


def _search(request: SearchRequest, report: Callable[[Outcome], None]) -> Outcome:
    last = 0.0
    failures: dict[str, str] = {}
    laws = allowed_laws(request.exactness, request.disabled, receive(request.rules, failures))

    def on_best(environment: Environment) -> None:
        nonlocal last
        if time.monotonic() - last > PROGRESS_SECONDS:
            report(_outcome(environment, SearchStatistics("running", 0, environment.largest_nodes), failures))
            last = time.monotonic()

    environment = Environment(
        request.task, laws, request.pricing, request.limits, request.seed, on_best, request.granted
    )
    try:
        return _outcome(environment, run_strategy(request.strategy, environment)[0], failures)
    finally:
        environment.close()


def _outcome(environment: Environment, statistics: SearchStatistics, failures: dict[str, str]) -> Outcome:
    return Outcome(
        environment.best,
        environment.base_cost,
        environment.lower_bound,
        unmeasured(environment.best, environment.pricing),
        tuple(environment.pricing.missing.values()),
        statistics.stop,
        statistics.simulations,
        statistics.nodes,
        environment.curve[-1][0],
        tuple(environment.curve),
        environment.extractables(),
        tuple(failures.items()),
    )


def _reprice(request: RepriceRequest) -> Outcome:
    start = time.monotonic()
    before, pricing = request.outcome, request.pricing
    assert before.extractables, "nothing to price again: the search did not begin"
    captured = captured_program(request.task, pricing)
    seconds = request.milp_seconds / len(before.extractables)
    all_found = [(e.extract(pricing, request.seed, seconds), e) for e in before.extractables]
    found, extractable = min(all_found, key=lambda pair: pair[0].cost)
    program = extractable.program(found.choices, found.cost)
    if captured.cost <= program.cost:  # an e-graph that was restarted from a program need not hold the captured one
        program = captured
    seconds = before.seconds + time.monotonic() - start
    return Outcome(
        program,
        captured.cost,
        # What has no time was kept out, and could be better.
        0.0 if pricing.distrust_ms and pricing.missing else min(found.lower_bound, program.cost),
        unmeasured(program, pricing),
        tuple(pricing.missing.values()),
        before.stop,
        before.simulations,
        before.nodes,
        seconds,
        (*before.curve, (seconds, program.cost)),
        (extractable, *(other for other in before.extractables if other is not extractable)),
        before.dropped,
    )


def allowed_laws(exactness: str, disabled: frozenset[str], others: Iterable[Law] = ()) -> list[Law]:
    """The laws of the catalogue, then ``others``, of tiers up to ``exactness``, without those disabled by name,
    declaration or family."""
    from torch_eqsat.rewrites import catalogue

    tiers = EXACTNESS[: EXACTNESS.index(exactness) + 1]
    return [law for law in (*catalogue(), *others) if law.exactness in tiers and not law.is_named_by(disabled)]


def main() -> None:
    """Serve requests from standard input until it ends."""
    limit = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing but messages may reach the parent
    try:
        while (request := read_message(requests)) is not None:
            try:
                reply: Outcome | Failure = answer(request, lambda found: write_message(answers, Progress(found)))
            except KeyboardInterrupt:
                return
            except BaseException as error:  # egglog's PanicException is no Exception
                reply = Failure(f"{type(error).__name__}: {error}")
            write_message(answers, reply)
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
