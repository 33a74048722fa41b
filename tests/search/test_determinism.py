"""The same graph, seed, prices and limits by nodes give the same plan in any process."""

import os
import pickle
import subprocess
import sys

import pytest
import torch

from torch_eqsat.search.strategies.table import STRATEGIES

PROGRAM = """
import pickle, sys
from torch_eqsat.rewrites import catalogue
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.search.limits import Limits
from bench.search.whole import search_whole

task = pickle.load(open(sys.argv[1], "rb"))
laws = [law for law in catalogue() if law.family in ("matmul", "merging", "elementwise")]
for strategy in sys.argv[2].split(","):
    for seed in (0, 1):
        limits = Limits(nodes=150, seconds=1e6, simulations=8)
        found = search_whole(task, laws, Pricing(frozen=True), limits, strategy=strategy, seed=seed)
        print(strategy, seed, found.program.graph.digest(), found.program.cost, found.stop, found.simulations)
"""


def recurrent(x, state, *weights):
    """Two steps of a cell, with laws of all kinds to choose from."""
    for a, b in zip(weights[::2], weights[1::2], strict=True):
        left, right = x @ a, state @ b
        state = torch.tanh((left + right) * 0.5) + torch.relu(x @ b)
    return (state @ weights[0]) @ weights[1]


@pytest.fixture
def answers(task_of, tmp_path):
    task = task_of(recurrent, (1, 256), (1, 256), *[(256, 256)] * 4, static=(2, 3, 4, 5))
    path = tmp_path / "task"
    path.write_bytes(pickle.dumps(task))

    def run(hash_seed: str, strategies: str) -> list[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        environment["PYTHONHASHSEED"] = hash_seed
        command = [sys.executable, "-c", PROGRAM, str(path), strategies]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return done.stdout.splitlines()

    return run


@pytest.mark.slow
def test_processes_agree(answers):
    strategies = ",".join(STRATEGIES)
    first, second = answers("1", strategies), answers("2", strategies)
    assert first == second
    assert len(first) == 2 * len(STRATEGIES)
