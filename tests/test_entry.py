"""The entry points by which torch finds the backends."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch._dynamo.backends import registry

from torch_eqsat import backend, entry

THREADS = 6


@pytest.mark.parametrize("name", entry.NAMES)
def test_backends_are_found_by_name(name, monkeypatch):
    monkeypatch.setattr(entry, "_loaded", set())
    assert registry.lookup_backend(name) is getattr(entry, name) is getattr(backend, name)
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        entry.other  # noqa: B018


def test_first_use_in_many_threads(monkeypatch):
    """torch registered the backend once for each of them, and the second raised."""

    class Slow:
        """All threads load before any registers."""

        barrier = threading.Barrier(THREADS)

        def load(self):
            self.barrier.wait()
            return entry.eqsat_mcts

    monkeypatch.setattr(entry, "_loaded", set())
    monkeypatch.setitem(registry._BACKENDS, "eqsat_mcts", Slow())
    others = {name: function for name, function in registry._COMPILER_FNS.items() if name != "eqsat_mcts"}
    monkeypatch.setattr(registry, "_COMPILER_FNS", others)
    with ThreadPoolExecutor(THREADS) as threads:
        found = list(threads.map(registry.lookup_backend, ["eqsat_mcts"] * THREADS))
    assert found == [backend.eqsat_mcts] * THREADS
    assert registry._COMPILER_FNS["eqsat_mcts"] is backend.eqsat_mcts
