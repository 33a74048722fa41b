"""What is freed stays with the process, where the allocator is glibc's."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from torch_eqsat import keep_freed_memory
from torch_eqsat.report import GraphReport

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")

FAULTS = """
import resource, torch
import torch_eqsat

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(1 << 20) for _ in range(8)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
torch_eqsat.keep_freed_memory()
faults()
faults()
print(before, faults())
"""


def faults(**settings):
    """Page faults before and after, with these variables of the environment and no others for the allocator."""
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_PRELOAD"))
    }
    environment = {**ours, **settings}
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=environment)
    before, after = map(int, run.stdout.split())
    pages = 8 * (4 << 20) // resource.getpagesize()
    if before < pages / 10:
        pytest.skip("the system gives memory in larger pages")
    return before, after, pages


@pytest.mark.slow
def test_what_was_freed_is_used_again():
    before, after, pages = faults()
    assert after < pages / 4, (before, after)  # a block at the end of the heap may go


@pytest.mark.slow
def test_the_threshold_of_the_user_stays():
    before, after, pages = faults(MALLOC_MMAP_THRESHOLD_="131072")
    assert after > pages / 2, (before, after)


def test_without_such_a_block_nothing_happens(monkeypatch):
    monkeypatch.setattr("torch_eqsat.allocator.LARGEST_KEPT", 1 << 62)
    keep_freed_memory()


@pytest.mark.usefixtures("fresh")
def test_the_backend_leaves_the_allocator_alone(monkeypatch):
    kept = []
    monkeypatch.setattr("torch_eqsat.allocator.keep_freed_memory", lambda: kept.append(True))
    monkeypatch.setattr("torch_eqsat.backend.optimize", lambda *_: GraphReport(1, False, changed=True))
    torch.compile(torch.relu, backend="eqsat_mcts_eager")(torch.ones(3))
    assert not kept
