"""What is freed stays with the process, where the allocator is glibc's."""

import platform
import resource
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from torch_eqsat.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(1 << 20) for _ in range(8)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
keep_freed_memory()
faults()
faults()
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_what_was_freed_is_used_again():
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    before, after = map(int, run.stdout.split())
    pages = 8 * (4 << 20) // resource.getpagesize()
    assert after < pages / 10 < before, (before, after)
