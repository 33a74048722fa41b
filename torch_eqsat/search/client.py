"""The parent's side of the search worker: start it, ask it, and kill it when it is late."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import struct
import subprocess
import sys
import time
from types import TracebackType
from typing import Any

from torch_eqsat.errors import WorkerError
from torch_eqsat.search.messages import Failure, Outcome, RepriceRequest, SearchRequest
from torch_eqsat.search.worker import write_message

GUARD = "TORCH_EQSAT_WORKER"
"""Set in workers: an executable that runs the user's program again instead of Python must not start more of them."""


class WorkerClient:
    """A search worker with at most ``memory_bytes`` of address space. Use as a context manager."""

    def __init__(self, memory_bytes: int) -> None:
        if getattr(sys, "frozen", False) or not sys.executable or GUARD in os.environ:
            raise WorkerError("no Python interpreter to run the search in")
        # -P: nothing in the current folder may stand in for a module of the standard library.
        start = "from torch_eqsat.search.worker import main; main()"
        command = [sys.executable, "-P", "-c", start, str(memory_bytes)]
        # egglog's thread pool would multiply the address space, and the search is deterministic with one thread.
        environment = {**os.environ, "RAYON_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        environment |= {"PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path), GUARD: "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )

    def __enter__(self) -> WorkerClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._process.wait()

    def ask(self, request: SearchRequest | RepriceRequest, seconds: float) -> Outcome:
        """The worker's answer. Raises WorkerError when it fails, dies, or takes more than ``seconds``."""
        assert self._process.stdin is not None
        try:
            write_message(self._process.stdin, request)  # type: ignore[arg-type]
        except BrokenPipeError as error:
            raise WorkerError(f"the search worker is gone (exit code {self._process.wait()})") from error
        answer = self._receive(time.monotonic() + seconds)
        if isinstance(answer, Failure):
            raise WorkerError(f"the search failed: {answer.text}")
        assert isinstance(answer, Outcome)
        return answer

    def _receive(self, deadline: float) -> Any:
        size = struct.unpack("<Q", self._read(8, deadline))[0]
        return pickle.loads(self._read(size, deadline))

    def _read(self, count: int, deadline: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        data = b""
        while len(data) < count:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise WorkerError("the search worker did not answer in time and was stopped")
            piece = os.read(descriptor, min(count - len(data), 1 << 20))
            if not piece:
                raise WorkerError(f"the search worker died (exit code {self._process.wait()}), out of memory perhaps")
            data += piece
        return data
