"""The parent's side of the search worker: start it, ask it, and kill it when it is late."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from types import TracebackType
from typing import Any

from torch_eqsat.errors import WorkerError
from torch_eqsat.search.messages import Failure, Outcome, Progress, RepriceRequest, SearchRequest
from torch_eqsat.search.worker import write_message

GUARD = "TORCH_EQSAT_WORKER"
"""Set in workers: an executable that runs the user's program again instead of Python must not start more of them."""
INTERRUPT_SECONDS = 3.0  # that an interrupted search may take to answer


class WorkerClient:
    """A search worker with at most ``memory_bytes`` of address space, started when it is asked and again when it has
    died. Use as a context manager."""

    def __init__(self, memory_bytes: int) -> None:
        if getattr(sys, "frozen", False) or not sys.executable or GUARD in os.environ:
            raise WorkerError("no Python interpreter to run the search in")
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> WorkerClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> subprocess.Popen[bytes]:
        # Nothing of the user's may stand in for a module of the standard library: -P leaves the current folder out, and
        # what this process imports from comes last.
        places = "import json, sys; sys.path += json.loads(sys.argv.pop())"
        start = f"{places}; from torch_eqsat.search.worker import main; main()"
        path = json.dumps([place or os.getcwd() for place in sys.path])
        command = [sys.executable, "-P", "-c", start, str(self._memory_bytes), path]
        # egglog's thread pool would multiply the address space, and the search is deterministic with one thread.
        environment = {**os.environ, "RAYON_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        environment[GUARD] = "1"
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )

    def stop(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        process.wait()

    def kill(self) -> None:
        """Kill the process; who waits for its answer gets what it reported."""
        if self._process is not None:
            self._process.kill()

    def interrupt(self) -> None:
        """Let the search end with what it has found."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)

    def ask(self, request: SearchRequest | RepriceRequest, seconds: float) -> Outcome:
        """The worker's answer. When it dies or takes more than ``seconds`` it is the last that it reported, with the
        reason in ``stop``; raises WorkerError when it reported nothing, or failed.

        An interrupt (Ctrl-C) ends the search: the answer's ``stop`` is "interrupted" then.
        """
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self._process = self._start()
        found: list[Outcome] = []
        try:
            try:
                return self._answer(request, time.monotonic() + seconds, found)
            except KeyboardInterrupt:
                self.interrupt()
                return replace(self._answer(None, time.monotonic() + INTERRUPT_SECONDS, found), stop="interrupted")
        except (WorkerError, BrokenPipeError) as error:
            self.stop()
            reason = str(error) if isinstance(error, WorkerError) else "the search worker is gone"
            if not found:
                raise WorkerError(reason) from error
            return replace(found[-1], stop=reason)

    def _answer(self, request: SearchRequest | RepriceRequest | None, deadline: float, found: list[Outcome]) -> Outcome:
        assert self._process is not None and self._process.stdin is not None
        if request is not None:
            write_message(self._process.stdin, request)  # type: ignore[arg-type]
        while isinstance(message := self._receive(deadline), Progress):
            found.append(message.outcome)
        if isinstance(message, Failure):
            raise WorkerError(f"the search failed: {message.text}")
        assert isinstance(message, Outcome)
        return message

    def _receive(self, deadline: float) -> Any:
        size = struct.unpack("<Q", self._read(8, deadline))[0]
        return pickle.loads(self._read(size, deadline))

    def _read(self, count: int, deadline: float) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        pieces = []
        while count:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise WorkerError("the search worker did not answer in time and was stopped")
            piece = os.read(descriptor, min(count, 1 << 20))
            if not piece:
                raise WorkerError(f"the search worker died (exit code {self._process.wait()}), out of memory perhaps")
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)
