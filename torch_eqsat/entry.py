"""Where torch finds the backends by name: the entry points of ``torch_dynamo_backends``.

torch (2.14.1) loads and registers a backend when its name is first used, and takes no lock. Threads that compile first
at the same time all find the name missing, and each registration but the first raises "duplicate name". Each thread but
the first therefore gets the backend once it is registered, and withdraws it, so that its own registration succeeds.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from torch._dynamo.backends import registry

NAMES = ("eqsat_mcts", "eqsat_mcts_eager")
REGISTRATION_SECONDS = 1.0  # it takes microseconds; who only loads an entry point never registers
_lock = threading.Lock()
_loaded: set[str] = set()


def __getattr__(name: str) -> Any:
    """The backend ``name``, for torch to register."""
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from torch_eqsat import backend

    with _lock:
        if name in _loaded:
            end = time.monotonic() + REGISTRATION_SECONDS
            while name not in registry._COMPILER_FNS and time.monotonic() < end:
                time.sleep(0.001)
            registry._COMPILER_FNS.pop(name, None)
        _loaded.add(name)
    return getattr(backend, name)
