"""Answers many requests at once: in worker processes of our own, or on the machines behind an executor.

Whatever happens to a worker costs its own region alone: that region keeps the best program its search reported, or the
captured one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType

from torch_eqsat.errors import WorkerError
from torch_eqsat.search.client import INTERRUPT_SECONDS, WorkerClient
from torch_eqsat.search.environment import unmeasured
from torch_eqsat.search.messages import Outcome, RepriceRequest, SearchRequest
from torch_eqsat.search.program import LEISURE_SECONDS, captured_program, cost_of

# What an answer may take beyond the time that was asked for, before the worker is stopped.
ANSWER_SECONDS = 10.0
MOST_WORKERS = 8
POLL_SECONDS = 0.2

Request = SearchRequest | RepriceRequest


def gave_up(request: Request, reason: str) -> Outcome:
    """The answer without a worker: the captured program for a search; for a repricing the program known before, at
    today's prices, if it is still the better one."""
    captured = captured_program(request.task, request.pricing)
    if isinstance(request, RepriceRequest):
        known = request.outcome.program
        program = replace(known, cost=cost_of(request.task, known, request.pricing))
        program = program if program.cost < captured.cost else captured
        unknown = unmeasured(program, request.pricing)
        return replace(
            request.outcome,
            program=program,
            base_cost=captured.cost,
            lower_bound=0.0,
            unmeasured=unknown,
            missing=tuple(request.pricing.missing.values()),
            stop=reason,
        )
    missing = tuple(request.pricing.missing.values())
    return Outcome(captured, captured.cost, 0.0, (), missing, reason, 0, 0, 0.0, ((0.0, captured.cost),))


def answer_with(worker: WorkerClient, request: Request, seconds: float) -> Outcome:
    """The worker's answer, within ``seconds`` and some more; never fails."""
    if isinstance(request, SearchRequest) and seconds <= 0:
        return gave_up(request, "time")
    try:
        return worker.ask(request, seconds + ANSWER_SECONDS)
    except WorkerError as error:
        return gave_up(request, str(error))


def answer_alone(request: Request, seconds: float, memory_bytes: int) -> Outcome:
    """Answer one request in a worker process of its own: what executors are given to run."""
    with WorkerClient(memory_bytes) as worker:
        return answer_with(worker, request, seconds)


def seconds_of(request: Request) -> float:
    """The time that a request grants."""
    if isinstance(request, SearchRequest):
        return request.limits.seconds
    return request.milp_seconds + LEISURE_SECONDS * len(request.outcome.extractables)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class WorkerPool:
    """Worker processes with ``memory_bytes`` of address space each, as many as there are cores; with an ``executor``
    its workers start them instead. After an interrupt (Ctrl-C) it answers at once, with what is known."""

    def __init__(self, memory_bytes: int, executor: Executor | None = None, workers: int | None = None) -> None:
        self._memory_bytes = memory_bytes
        self._executor = executor
        self.workers = min(cores(), MOST_WORKERS) if workers is None else workers
        self._idle: list[WorkerClient] = []
        self._busy: list[WorkerClient] = []
        self._lock = threading.Lock()
        self.interrupted = False

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in (*self._idle, *self._busy):
            worker.stop()

    def map(self, requests: Sequence[Callable[[], Request]]) -> list[Outcome]:
        """The answers in order. Requests are made when their turn comes, so that they may share a budget."""
        if self._executor is not None:
            made = [request() for request in requests]
            futures = [self._executor.submit(answer_alone, r, seconds_of(r), self._memory_bytes) for r in made]
            return [self._result(future, partial(_itself, r)) for future, r in zip(futures, made, strict=True)]
        with ThreadPoolExecutor(max(1, min(self.workers, len(requests)))) as threads:
            futures = [threads.submit(self._answer, request) for request in requests]
            return [self._result(future, request) for future, request in zip(futures, requests, strict=True)]

    def _answer(self, make: Callable[[], Request]) -> Outcome:
        request = make()
        if self.interrupted:
            return gave_up(request, "interrupted")
        with self._worker() as worker:
            return answer_with(worker, request, seconds_of(request))

    @contextmanager
    def _worker(self) -> Iterator[WorkerClient]:
        with self._lock:
            worker = self._idle.pop() if self._idle else WorkerClient(self._memory_bytes)
            self._busy.append(worker)
        try:
            yield worker
        finally:
            with self._lock:
                self._busy.remove(worker)
                self._idle.append(worker)

    def _result(self, future: Future[Outcome], make: Callable[[], Request]) -> Outcome:
        """A future's answer; whatever goes wrong on the way gives up its region alone."""
        try:
            self._wait(future)
            if self.interrupted and not future.done():
                if self._executor is not None:  # it runs on a machine that we cannot reach
                    return gave_up(make(), "interrupted")
                for worker in list(self._busy):
                    worker.kill()
            return future.result()
        except KeyboardInterrupt:
            self._interrupt()
            return self._result(future, make)
        except Exception as error:  # a lost machine, a message that could not be sent
            return gave_up(make(), f"{type(error).__name__}: {error}")

    def _wait(self, future: Future[Outcome]) -> None:
        """Wait for a future, after an interrupt not for long. In short steps: only between them is an interrupt sure to
        be seen."""
        end = time.monotonic() + INTERRUPT_SECONDS if self.interrupted else float("inf")
        while not future.done() and time.monotonic() < end:
            wait([future], timeout=POLL_SECONDS)

    def _interrupt(self) -> None:
        self.interrupted = True
        with self._lock:
            busy = list(self._busy)
        for worker in busy:
            worker.interrupt()


def _itself(request: Request) -> Request:
    return request
