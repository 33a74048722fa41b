"""The search worker: a process without torch, under a limit of its address space.

egglog has no limits inside a run and aborts its process when memory ends, so it never runs in the user's process.
Each better program is sent at once, so that what was found outlives the worker.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

from torch_eqsat.cost.model import Missing
from torch_eqsat.cost.programs import captured_program, unmeasured
from torch_eqsat.egraph.workshop import Workshop
from torch_eqsat.errors import WorkerError
from torch_eqsat.extract.extract import Extraction
from torch_eqsat.laws.law import EXACTNESS, Law
from torch_eqsat.laws.transfer import receive
from torch_eqsat.rewrites import catalogue
from torch_eqsat.search.environment import Environment
from torch_eqsat.search.extractable import Extractable
from torch_eqsat.search.limits import SearchStatistics, StopReason
from torch_eqsat.search.strategies.table import OutOfTime, run_strategy
from torch_eqsat.search.worker.channel import Channel, ClosedChannelError
from torch_eqsat.search.worker.fallback import gave_up
from torch_eqsat.search.worker.messages import Failure, Outcome, Progress, RepriceRequest, Request, SearchRequest

PROGRESS_SECONDS = 0.2  # between two reports of a better program
TICK_SECONDS = 0.25  # between two looks at the clock and at the parent
# In extractions' worth of seconds: how long a repricing may go on beyond its time. What it has found by then is lost.
REPRICE_GRACE = 3
# Searches that an exception ended.
CUT_OFF = (StopReason.TIME, StopReason.INTERRUPTED, StopReason.OUT_OF_MEMORY)
SEND_SECONDS = 60.0  # that the parent may take to read an answer
# An orphan within compiled code sees no signal; CPU seconds beyond those of its request are where the system ends it.
CPU_GRACE_SECONDS = 30

_workshop: Workshop | None = None  # for all requests of a worker: regions of one graph are alike


def answer(request: Request, report: Callable[[Outcome], None]) -> Outcome:
    """Answer a request; ``report`` is given what was found so far."""
    return _search(request, report) if isinstance(request, SearchRequest) else _reprice(request)


def _search(request: SearchRequest, report: Callable[[Outcome], None]) -> Outcome:
    last = 0.0
    failures: dict[str, str] = {}
    laws = allowed_laws(request.exactness, request.disabled, receive(request.user_laws, failures))

    def on_best(environment: Environment) -> None:
        nonlocal last
        if time.monotonic() - last > PROGRESS_SECONDS:
            running = SearchStatistics(StopReason.RUNNING, 0, environment.largest_nodes)
            report(_outcome(environment, running, failures))
            last = time.monotonic()

    environment = Environment(
        request.task,
        laws,
        request.pricing,
        request.limits,
        request.seed,
        on_best,
        request.granted,
        request.parameters,
        None if request.user_laws else _workshop,
        request.hint,
    )
    statistics = None
    try:
        statistics, _ = run_strategy(request.strategy, environment)
        _clock.disarm()
        return _outcome(environment, statistics, failures)
    finally:
        whole = statistics is not None and statistics.stop not in CUT_OFF
        environment.close(whole=whole)
        if not whole:
            _renew_workshop()


def _outcome(environment: Environment, statistics: SearchStatistics, failures: dict[str, str]) -> Outcome:
    return Outcome(
        program=environment.best,
        base_cost=environment.base_cost,
        lower_bound=environment.lower_bound,
        unmeasured=unmeasured(environment.best, environment.pricing),
        missing=tuple(environment.missing.values()),
        stop=statistics.stop,
        simulations=statistics.simulations,
        nodes=statistics.nodes,
        seconds=environment.curve[-1][0],
        curve=tuple(environment.curve),
        extractables=environment.extractables(),
        dropped=tuple(failures.items()),
        transient=statistics.transient,
    )


def _renew_workshop() -> None:
    """Have a workshop without engines: one that an exception left half way must not be used again."""
    global _workshop
    if _workshop is not None:
        _workshop.close()
        _workshop = Workshop()


def _reprice(request: RepriceRequest) -> Outcome:
    start = time.monotonic()
    before, pricing = request.outcome, request.pricing
    assert before.extractables, "nothing to price again: the search did not begin"
    missing: Missing = {}
    captured = captured_program(request.task, pricing, missing)
    all_found = [(_extracted(extractable, request, missing), extractable) for extractable in before.extractables]
    found, extractable = min(all_found, key=lambda pair: pair[0].cost)
    program = extractable.program(found.choices, found.cost)
    if captured.cost <= program.cost:  # an e-graph that was restarted from a program need not hold the captured one
        program = captured
    seconds = before.seconds + time.monotonic() - start
    doubted = 1 + max(pricing.heavy_doubt, pricing.fused_doubt)
    return replace(
        before,
        program=program,
        base_cost=captured.cost,
        # What has no time was kept out, and could be better; no program costs less than its price without doubts.
        lower_bound=0.0 if pricing.distrust_ms and missing else min(found.lower_bound, program.cost) / doubted,
        unmeasured=unmeasured(program, pricing),
        missing=tuple(missing.values()),
        seconds=seconds,
        curve=(*before.curve, (seconds, program.cost)),
        extractables=(extractable, *(other for other in before.extractables if other is not extractable)),
    )


def _extracted(extractable: Extractable, request: RepriceRequest, missing: Missing) -> Extraction:
    """One e-graph extracted again, with as much care as its size is worth."""
    parameters, nodes = request.parameters, len(extractable.snapshot.nodes)
    small = [e for e in request.outcome.extractables if len(e.snapshot.nodes) <= parameters.exact_nodes]
    milp_seconds = request.milp_seconds / len(small) if extractable in small else 0.0
    rounds = request.rounds if nodes <= parameters.annealed_nodes else 0
    return extractable.extract(request.pricing, request.seed, milp_seconds, request.leisure_seconds, missing, rounds)


def allowed_laws(exactness: str, disabled: frozenset[str], others: Iterable[Law] = ()) -> list[Law]:
    """The laws of the catalogue, then ``others``, of tiers up to ``exactness``, without those disabled by name,
    declaration or family."""
    tiers = EXACTNESS[: EXACTNESS.index(exactness) + 1]
    return [law for law in (*catalogue(), *others) if law.exactness in tiers and not law.is_named_by(disabled)]


class _Clock:
    """Looks at the time and at the parent while this process works: some steps of a search look at no clock. Past the
    time of a request it raises OutOfTime, again after a second in case that was swallowed; an orphan ends."""

    def __init__(self) -> None:
        self._parent = 0
        self._end = math.inf

    def start(self, parent: int) -> None:
        """Look from now on; ``parent`` is the process that this one works for."""
        self._parent = parent
        signal.signal(signal.SIGALRM, self._tick)
        signal.setitimer(signal.ITIMER_REAL, TICK_SECONDS, TICK_SECONDS)

    def arm(self, seconds: float) -> None:
        """Raise OutOfTime after ``seconds``."""
        self._end = time.monotonic() + seconds
        used = resource.getrusage(resource.RUSAGE_SELF)
        most = int(used.ru_utime + used.ru_stime + seconds) + CPU_GRACE_SECONDS
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))

    def disarm(self) -> None:
        self._end = math.inf

    def _tick(self, number: int, frame: FrameType | None) -> None:
        if self.is_orphan:
            os._exit(1)
        if time.monotonic() > self._end:
            self._end = time.monotonic() + 1.0
            raise OutOfTime

    @property
    def is_orphan(self) -> bool:
        return os.getppid() != self._parent


_clock = _Clock()


def _most_seconds(request: Request) -> float:
    """The seconds after which the work on a request is cut off: its time, and as much as steps that look at no clock
    may take beyond it."""
    if isinstance(request, SearchRequest):
        return request.seconds + 2 * request.parameters.grace(request.seconds)
    return request.seconds + REPRICE_GRACE * request.parameters.evaluation_seconds


def _respond(request: Request, channel: Channel) -> Outcome | Failure:
    """The answer, or why there is none."""
    try:
        _clock.arm(_most_seconds(request))
        return answer(request, lambda found: _send(channel, Progress(found)))
    except OutOfTime:  # before the search had begun, or within an extraction of a repricing
        _clock.disarm()
        if isinstance(request, RepriceRequest):
            return gave_up(request, StopReason.LATE, "extracting again took too long")
        return gave_up(request, StopReason.TIME, transient=False)
    finally:
        _clock.disarm()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No signal's exception may cut a message in two."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGALRM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _send(channel: Channel, message: Progress | Outcome | Failure) -> None:
    with _undisturbed():
        channel.send(message, time.monotonic() + SEND_SECONDS)


def _serve(channel: Channel) -> None:
    """Answer requests until the parent is gone."""
    while not _clock.is_orphan:
        if not channel.is_ready(time.monotonic() + 1.0):
            continue
        request = channel.receive(time.monotonic() + SEND_SECONDS)
        try:
            reply: Outcome | Failure = _respond(request, channel)
        except KeyboardInterrupt:
            return
        except BaseException as error:  # egglog's PanicException is no Exception
            reply = Failure(f"{type(error).__name__}: {' '.join(str(error).split())}")  # egglog's have several lines
        _send(channel, reply)


def main() -> None:
    """Serve requests from the pipes that the arguments name, until they are closed or the parent is gone."""
    limit, reading, writing, parent = map(int, sys.argv[1:5])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    channel = Channel(reading, writing)
    global _workshop
    _workshop = Workshop()
    try:
        channel.greet(time.monotonic() + SEND_SECONDS)
        _clock.start(parent)
        _serve(channel)
    except (KeyboardInterrupt, ClosedChannelError):
        return
    except WorkerError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
