"""The runner's side of ``bench.speed.variant``: starts the process of a variant, asks it, ends it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_LIMIT_S = 900.0
_LAST_LINES = 15
_SAMPLE_S = 0.1


class VariantError(Exception):
    """A variant failed, or did not answer in time."""


class VariantProcess:
    """The process of one variant of one case. It computes only while it is asked, and blocks on its input otherwise.

    ``caches`` are environment variables that name its cache folders; what it prints goes to the file ``log``. An
    answer that takes longer than ``limit_s`` seconds ends it. ``program`` is what it runs.
    """

    def __init__(
        self,
        case: str,
        variant: str,
        caches: dict[str, str],
        log: Path,
        limit_s: float = _LIMIT_S,
        program: str = "bench.speed.variant",
    ) -> None:
        self._log = log
        self._limit_s = limit_s
        self._late = False
        with log.open("w") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", program, case, variant],
                cwd=_ROOT, env={**os.environ, **caches},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, text=True,
                start_new_session=True,
            )  # fmt: skip

    def ready(self) -> dict[str, Any]:
        """Wait until it has compiled and compared: the fields of ``bench.speed.variant.Ready``."""
        answer: dict[str, Any] = self._read()
        return answer

    def ready_with_memory(self) -> tuple[dict[str, float], int]:
        """What ``ready`` answers, and the largest memory meanwhile: bytes resident in the process and its descendants,
        sampled ten times a second; pages that they share count more than once."""
        done = threading.Event()
        peak = [0]

        def watch() -> None:
            while not done.wait(_SAMPLE_S):
                peak[0] = max(peak[0], resident_bytes(self._process.pid))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            return self.ready(), peak[0]
        finally:
            done.set()
            watcher.join()

    def time(self, count: int) -> list[float]:
        """The milliseconds of each of ``count`` calls made now."""
        answer: list[float] = self.ask(f"time {count}")
        return answer

    def ask(self, request: str) -> Any:
        """The answer to a request, a line."""
        self._write(request)
        return self._read()

    def close(self) -> None:
        """End the process."""
        try:
            self._write("quit")
            self._process.wait(10)
        except (VariantError, subprocess.TimeoutExpired):
            self._kill()
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
        guard = threading.Timer(self._limit_s, self._too_late)
        guard.start()
        line = self._process.stdout.readline()
        guard.cancel()
        if not line:
            raise self._failure()
        return json.loads(line)

    def _too_late(self) -> None:
        self._late = True
        self._kill()

    def _kill(self) -> None:
        """End it and the compilers it started, which are in its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _failure(self) -> VariantError:
        code = self._process.wait()
        if self._late:
            return VariantError(f"took more than {self._limit_s:.0f} s")
        tail = self._log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        return VariantError("\n".join([f"ended with status {code}; the end of its log:", *tail]))


def resident_bytes(root: int) -> int:
    """The bytes resident in a process and its descendants, after Linux's /proc; 0 where there is none."""
    children: dict[int, list[int]] = {}
    pages: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name of the program, in parentheses, may hold spaces.
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            process = int(stat.parent.name)
            children.setdefault(int(fields[1]), []).append(process)
            pages[process] = int(fields[21])
    total, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        total += pages.get(process, 0)
        waiting += children.get(process, [])
    return total * os.sysconf("SC_PAGE_SIZE")
