"""Messages between a process and its search worker, over two pipes that nothing else writes to.

Each message is a pickle after its length in eight bytes; the worker's first bytes are :data:`MAGIC`. Pickles pass
between these two processes alone. Neither side waits without a deadline: the other may be stopped, or no worker at all.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import struct
import time
from typing import Any

from torch_eqsat.errors import WorkerError

MAGIC = b"torch_eqsat search worker 1\n"
LARGEST_MESSAGE = 1 << 30  # bytes; what claims to be longer is no message
_PIECE = 1 << 20


class ClosedChannelError(WorkerError):
    """The other side is gone."""


class LateError(WorkerError):
    """The deadline came first."""


class Channel:
    """One side of a pair of pipes: ``reading`` and ``writing`` are its descriptors, which it owns. Deadlines are of
    ``time.monotonic()``, in seconds. After any error but LateError in :meth:`is_ready` nothing more can be said."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing
        for descriptor in (reading, writing):
            os.set_blocking(descriptor, False)

    def close(self) -> None:
        """Close both pipes; safe to call twice."""
        for descriptor in (self._reading, self._writing):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._reading = self._writing = -1

    def greet(self, deadline: float) -> None:
        """Say that this is a worker."""
        self._write(MAGIC, deadline)

    def expect_greeting(self, deadline: float) -> None:
        """Raise WorkerError unless the other side is a worker."""
        heard = self._read(len(MAGIC), deadline)
        if heard != MAGIC:
            raise WorkerError(f"what was started as search worker is none: it said {heard[:12]!r}")

    def send(self, message: Any, deadline: float) -> None:
        """Send one message. Raises LateError, and ClosedChannelError where nobody reads any more."""
        payload = pickle.dumps(message)
        if len(payload) > LARGEST_MESSAGE:
            raise WorkerError(f"a message of {len(payload)} bytes is longer than {LARGEST_MESSAGE}")
        self._write(struct.pack("<Q", len(payload)) + payload, deadline)

    def receive(self, deadline: float) -> Any:
        """The next message. Raises LateError, ClosedChannelError at the end, and WorkerError for what is no message."""
        (size,) = struct.unpack("<Q", self._read(8, deadline))
        if size > LARGEST_MESSAGE:
            raise WorkerError(f"the search worker announced a message of {size} bytes, which is none")
        payload = self._read(size, deadline)
        try:
            return pickle.loads(payload)
        except Exception as error:  # whatever a damaged pickle raises
            raise WorkerError(f"a message cannot be read: {type(error).__name__}: {error}") from error

    def is_ready(self, deadline: float) -> bool:
        """Whether there is something to read (the end included) before the deadline."""
        return _wait(self._reading, select.POLLIN, deadline)

    def _write(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            if not _wait(self._writing, select.POLLOUT, deadline):
                raise LateError("the search worker did not read in time and was stopped")
            try:
                view = view[os.write(self._writing, view[:_PIECE]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise ClosedChannelError("the search worker is gone") from error

    def _read(self, count: int, deadline: float) -> bytes:
        pieces = []
        while count:
            if not _wait(self._reading, select.POLLIN, deadline):
                raise LateError("the search worker did not answer in time and was stopped")
            try:
                piece = os.read(self._reading, min(count, _PIECE))
            except BlockingIOError:
                continue
            if not piece:
                raise ClosedChannelError("the search worker is gone")
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)


def _wait(descriptor: int, event: int, deadline: float) -> bool:
    """Whether the descriptor is ready before the deadline. By poll, for select refuses descriptors from 1024 on."""
    poller = select.poll()
    poller.register(descriptor, event)
    milliseconds = max(0.0, deadline - time.monotonic()) * 1e3
    return bool(poller.poll(min(milliseconds + 1, 2**31 - 1)))
