"""Answers many requests at once: in worker processes of our own, or on the machines behind an executor.

Whatever happens to a worker costs its own region alone: that region keeps the best program its search reported, or the
captured one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from types import TracebackType

from torch_eqsat.errors import WorkerError
from torch_eqsat.search.limits import StopReason
from torch_eqsat.search.worker.client import INTERRUPT_SECONDS, WorkerClient
from torch_eqsat.search.worker.fallback import gave_up, stop_of
from torch_eqsat.search.worker.messages import Outcome, Request, SearchRequest

logger = logging.getLogger(__name__)

# What an answer may take beyond the time that was asked for (the start of a worker, 1 s, is part of it), before it is
# stopped; and all the answers of a graph together beyond the time of the graph.
OVERRUN_SECONDS = 5.0
MOST_WORKERS = 8
POLL_SECONDS = 0.2
AGAIN_SECONDS = 0.5  # a parent that passes signals on may deliver one Ctrl-C twice
LATE_SECONDS = 1.0  # after the last moment of all workers, for their answers to get here


def answer_with(worker: WorkerClient, request: Request, seconds: float) -> Outcome:
    """The worker's answer, within ``seconds``; never fails."""
    if isinstance(request, SearchRequest) and request.seconds <= 0:
        return gave_up(request, StopReason.TIME, transient=False)
    if seconds <= 0:
        return gave_up(request, StopReason.LATE, "no time was left for it")
    try:
        return worker.ask(request, seconds)
    except WorkerError as error:
        return gave_up(request, stop_of(error), str(error))


def answer_alone(request: Request, seconds: float, memory_bytes: int) -> Outcome:
    """Answer one request in a worker process of its own: what executors are given to run."""
    try:
        with WorkerClient(memory_bytes) as worker:
            return answer_with(worker, request, seconds)
    except WorkerError as error:
        return gave_up(request, stop_of(error), str(error))


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
        self._closed = False
        self.interrupted, self._interrupted_at = False, 0.0

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        self._kill()  # the threads that wait for these stop them
        for worker in idle:
            worker.stop()

    def map(self, requests: Sequence[Callable[[], Request]], until: float) -> list[Outcome]:
        """The answers in order, all of them by ``until`` (of time.monotonic(), s). Requests are made when their turn
        comes, so that they may share a budget."""
        if self._executor is not None:
            made = [request() for request in requests]
            futures = [self._executor.submit(answer_alone, r, _granted(r, until), self._memory_bytes) for r in made]
            try:
                return [self._result(f, partial(_itself, r), until) for f, r in zip(futures, made, strict=True)]
            except BaseException:  # a second interrupt
                for future in futures:
                    future.cancel()
                raise
        threads = ThreadPoolExecutor(max(1, min(self.workers, len(requests))))
        try:
            futures = [threads.submit(self._answer, request, until) for request in requests]
            return [self._result(future, request, until) for future, request in zip(futures, requests, strict=True)]
        except BaseException:  # a second interrupt: nothing may go on after it
            self._kill()
            raise
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _answer(self, make: Callable[[], Request], until: float) -> Outcome:
        request = make()
        if self.interrupted:
            return gave_up(request, StopReason.INTERRUPTED)
        with self._worker() as worker:
            return answer_with(worker, request, _granted(request, until))

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
                if not self._closed:
                    self._idle.append(worker)
            if self._closed:
                worker.stop()

    def _result(self, future: Future[Outcome], make: Callable[[], Request], until: float) -> Outcome:
        """A future's answer; whatever goes wrong on the way gives up its region alone."""
        try:
            end = until + LATE_SECONDS
            _wait(future, min(end, time.monotonic() + INTERRUPT_SECONDS) if self.interrupted else end)
            if not future.done():
                if self._executor is not None:  # it runs on a machine that we cannot reach
                    future.cancel()
                    return self._without_answer(make())
                self._kill()
                _wait(future, time.monotonic() + LATE_SECONDS)
                if not future.done():
                    return self._without_answer(make())
            return future.result(timeout=0)
        except KeyboardInterrupt:
            if self.interrupted and time.monotonic() - self._interrupted_at > AGAIN_SECONDS:
                raise
            self._interrupt()
            return self._result(future, make, until)
        except Exception as error:  # a lost machine, a message that could not be sent
            return gave_up(make(), StopReason.FAILED, f"{type(error).__name__}: {error}")

    def _without_answer(self, request: Request) -> Outcome:
        if self.interrupted:
            return gave_up(request, StopReason.INTERRUPTED)
        return gave_up(request, StopReason.LATE, "the answer did not come in time")

    def _interrupt(self) -> None:
        if self.interrupted:
            return
        self.interrupted, self._interrupted_at = True, time.monotonic()
        logger.warning("interrupted: the searches end, and compilation goes on; interrupt again to end it")
        for worker in self._now_busy():
            worker.interrupt()

    def _kill(self) -> None:
        for worker in self._now_busy():
            worker.kill()

    def _now_busy(self) -> list[WorkerClient]:
        with self._lock:
            return list(self._busy)


def _granted(request: Request, until: float) -> float:
    """The seconds until the worker of this request is stopped."""
    return max(0.0, min(request.seconds + OVERRUN_SECONDS, until - time.monotonic()))


def _wait(future: Future[Outcome], end: float) -> None:
    """Wait for a future until ``end``. In short steps: only between them is an interrupt sure to be seen."""
    while not future.done() and time.monotonic() < end:
        wait([future], timeout=POLL_SECONDS)


def _itself(request: Request) -> Request:
    return request
