"""The runner's side of ``bench.variant``: starts the process of a variant, asks it, ends it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
_LIMIT_S = 900.0
_LAST_LINES = 15


class VariantError(Exception):
    """A variant failed, or did not answer in time."""


class VariantProcess:
    """The process of one variant of one case. It computes only while it is asked, and blocks on its input otherwise.

    ``caches`` are environment variables that name its cache folders; what it prints goes to the file ``log``.
    """

    def __init__(self, case: str, variant: str, caches: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("w") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.variant", case, variant],
                cwd=_ROOT, env={**os.environ, **caches},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, text=True,
            )  # fmt: skip

    def ready(self) -> dict[str, float]:
        """Wait until it has compiled and compared: the fields of ``bench.variant.Ready``."""
        answer: dict[str, float] = self._read()
        return answer

    def time(self, count: int) -> list[float]:
        """The milliseconds of each of ``count`` calls made now."""
        self._write(f"time {count}")
        answer: list[float] = self._read()
        return answer

    def close(self) -> None:
        """End the process."""
        try:
            self._write("quit")
            self._process.wait(10)
        except (VariantError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            print(line, file=self._process.stdin, flush=True)
        except OSError as error:
            raise self._failure() from error

    def _read(self) -> Any:
        assert self._process.stdout is not None
        guard = threading.Timer(_LIMIT_S, self._process.kill)
        guard.start()
        line = self._process.stdout.readline()
        guard.cancel()
        if not line:
            raise self._failure()
        return json.loads(line)

    def _failure(self) -> VariantError:
        code = self._process.wait()
        tail = self._log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        return VariantError("\n".join([f"ended with status {code}; the end of its log:", *tail]))
