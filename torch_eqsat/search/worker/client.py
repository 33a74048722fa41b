"""The parent's side of the search worker: start it, ask it, and kill it when it is late."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from types import TracebackType

from torch_eqsat.errors import WorkerError
from torch_eqsat.search.limits import StopReason
from torch_eqsat.search.worker.channel import Channel, ClosedChannelError
from torch_eqsat.search.worker.fallback import stop_of
from torch_eqsat.search.worker.messages import Failure, Outcome, Progress, Request, SearchRequest

logger = logging.getLogger(__name__)

GUARD = "TORCH_EQSAT_WORKER"
"""Set in workers: an executable that runs the user's program again instead of Python must not start more of them."""
INTERRUPT_SECONDS = 3.0  # that an interrupted search may take to answer
LEAST_SECONDS = 0.5  # of the time of a search that are left when its worker took long to start
REAP_SECONDS = 2.0  # that a killed process may take to be gone


class DeadWorkerError(WorkerError):
    """The worker's process ended before it answered."""


class WorkerClient:
    """A search worker with at most ``memory_bytes`` of address space, started when it is asked and again when it has
    died. Use as a context manager; one thread may ask, any may :meth:`kill` and :meth:`interrupt`."""

    def __init__(self, memory_bytes: int) -> None:
        if getattr(sys, "frozen", False) or not sys.executable or GUARD in os.environ:
            raise WorkerError("no Python interpreter to run the search in")
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._killed = False

    def __enter__(self) -> WorkerClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, deadline: float) -> Channel:
        """A new process; its first bytes have to say that it is a worker."""
        theirs, ours = os.pipe(), os.pipe()  # each (to read, to write), inherited by nobody else
        channel = self._channel = Channel(ours[0], theirs[1])
        try:
            self._process = subprocess.Popen(
                self._command(theirs[0], ours[1]),
                # What the user's site packages print is nobody's message; the terminal's Ctrl-C is for this process.
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs[0], ours[1]),
                start_new_session=True,
                env=_environment(),
            )
        except OSError as error:
            raise WorkerError(f"the search worker could not be started: {error}") from error
        finally:
            os.close(theirs[0])
            os.close(ours[1])
        if self._killed:
            raise WorkerError("the search worker was stopped")
        channel.expect_greeting(deadline)
        return channel

    def _command(self, reading: int, writing: int) -> list[str]:
        # Nothing of the user's may stand in for a module of the standard library: -P leaves the current folder out, and
        # what this process imports from comes last.
        places = "import json, sys; sys.path += json.loads(sys.argv.pop())"
        start = f"{places}; from torch_eqsat.search.worker.process import main; main()"
        numbers = [str(number) for number in (self._memory_bytes, reading, writing, os.getpid())]
        return [sys.executable, "-P", "-c", start, *numbers, json.dumps([place or os.getcwd() for place in sys.path])]

    def stop(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
        if process is not None:
            process.kill()
            with suppress(subprocess.TimeoutExpired):  # stuck in the kernel: it ends when it can
                process.wait(REAP_SECONDS)

    def kill(self) -> None:
        """Kill the process for good; who waits for its answer gets what it reported."""
        self._killed = True
        if (process := self._process) is not None:
            process.kill()

    def interrupt(self) -> None:
        """Let the search end with what it has found."""
        if (process := self._process) is not None:
            process.send_signal(signal.SIGINT)

    def ask(self, request: Request, seconds: float) -> Outcome:
        """The worker's answer. A worker that dies is started once more, with the time that is left. When it dies again
        or takes more than ``seconds`` it is the last that it reported, with the reason in ``detail``; raises
        WorkerError when it reported nothing, or failed.

        An interrupt (Ctrl-C) ends the search, which the answer's ``stop`` says then.
        """
        start = time.monotonic()
        found: list[Outcome] = []
        try:
            try:
                return self._attempt(request, start + seconds, found)
            except DeadWorkerError as error:
                left = _shortened(request, time.monotonic() - start)
                if left is None or self._killed:
                    raise
                logger.debug("%s; it is started once more", error)
                self.stop()
                return self._attempt(left, start + seconds, found)
        except WorkerError as error:
            self.stop()
            if not found:
                raise
            return found[-1].cut_short(stop_of(error), str(error))
        except BaseException:  # a second Ctrl-C: what the worker says next would answer no question
            self.stop()
            raise

    def _attempt(self, request: Request, deadline: float, found: list[Outcome]) -> Outcome:
        try:
            if self._process is None or self._channel is None or self._process.poll() is not None:
                self.stop()
                start = time.monotonic()
                self._start(deadline)
                request = _after_start(request, time.monotonic() - start)
            assert self._channel is not None
            self._channel.send(request, deadline)
            try:
                return self._answer(self._channel, deadline, found)
            except KeyboardInterrupt:
                self.interrupt()
                end = time.monotonic() + INTERRUPT_SECONDS
                return self._answer(self._channel, end, found).cut_short(StopReason.INTERRUPTED)
        except ClosedChannelError as error:
            raise DeadWorkerError(self._last_words()) from error

    def _answer(self, channel: Channel, deadline: float, found: list[Outcome]) -> Outcome:
        while isinstance(message := self._receive(channel, deadline), Progress):
            found.append(message.outcome)
        if isinstance(message, Failure):
            raise WorkerError(f"the search failed: {message.text}")
        if not isinstance(message, Outcome):
            raise WorkerError(f"the search worker answered with {type(message).__name__}, which is no answer")
        return message

    def _receive(self, channel: Channel, deadline: float) -> object:
        return channel.receive(deadline)

    def _last_words(self) -> str:
        code: int | str = "unknown"
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(REAP_SECONDS) if self._process else code
        return f"the search worker died (exit code {code}), out of memory perhaps"


def _shortened(request: Request, seconds: float) -> Request | None:
    """The request after ``seconds`` of its time were lost; None if nothing is left."""
    if not isinstance(request, SearchRequest):
        return request
    left = request.limits.seconds - seconds
    return replace(request, limits=replace(request.limits, seconds=left)) if left > 0 else None


def _after_start(request: Request, seconds: float) -> Request:
    """The request when its worker has taken ``seconds`` of its time to start, but for the last half second."""
    if not isinstance(request, SearchRequest):
        return request
    left = max(request.seconds - seconds, min(request.seconds, LEAST_SECONDS))
    return replace(request, limits=replace(request.limits, seconds=left))


def _environment() -> dict[str, str]:
    # egglog's thread pool would multiply the address space, and the search is deterministic with one thread.
    one_thread = dict.fromkeys(("RAYON_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    return {**os.environ, **one_thread, GUARD: "1"}
