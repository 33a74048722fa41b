"""Memory that a compiled program takes and frees in every call can stay with the process: for users to ask for."""

from __future__ import annotations

import contextlib

import torch

# glibc serves blocks up to the largest that was ever freed (at most this, less its header) from its heap, and returns
# free memory at the heap's end to the system beyond twice that: M_MMAP_THRESHOLD in mallopt(3).
LARGEST_KEPT = (32 << 20) - (1 << 16)


def keep_freed_memory() -> None:
    """Have glibc's malloc keep freed memory, for the whole process and from now on: blocks of up to 32 MiB come from
    its heap, at whose end 64 MiB stay free, and free blocks below one in use stay too.

    torch.compile never does this by itself. A rewritten program may hold more at once than the original, whose largest
    block has set how much is kept: a VAE's decoder took 12,500 page faults a call, 57 ms, and 39 ms after this. Call it
    once, before or after compiling. Where the user has set glibc's thresholds (``MALLOC_MMAP_THRESHOLD_=131072`` is its
    default), or with another allocator, it does nothing. Raises nothing.
    """
    # One large block that nothing was written to, freed at once: glibc raises its thresholds to it.
    with contextlib.suppress(RuntimeError):  # there is no such block
        torch.UntypedStorage(LARGEST_KEPT, device="cpu")
