"""Pricing a large e-graph at known prices."""

import sys
from collections.abc import Callable

import pytest
import torch

from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.egraph.egraph import EGraph
from torch_eqsat.rewrites import catalogue
from torch_eqsat.search.extractable import Extractable

ENODES = 3_000
LIMIT = 100.0  # calls an e-node, which take about 8 µs: e-graphs of 10,000 are priced many times in a search


def mixed(image, state, small, large, *weights):
    """Convolutions side by side, then steps of a recurrent cell: kernels of both kinds, and what joins them."""
    for _ in range(4):
        image = torch.relu(torch.conv2d(image, small) + torch.conv2d(image, large, padding=1))
    for a, b in zip(weights[::2], weights[1::2], strict=True):
        state = torch.tanh(state @ a + torch.relu(state @ b) * torch.sigmoid(state @ (a + b)))
    return image, state


@pytest.fixture
def extractable(task_of):
    shapes = [(1, 8, 14, 14), (4, 64), (8, 8, 1, 1), (8, 8, 3, 3)] + [(64, 64)] * 10
    task = task_of(mixed, *shapes, static=range(2, 14))
    laws, egraph = catalogue(), EGraph(catalogue(), 4 * ENODES)
    egraph.load(task.graph)
    while egraph.size < ENODES and egraph.apply(laws, fair=True).fired:
        pass
    yield Extractable(task, egraph.snapshot())
    egraph.close()


def calls_within(work: Callable[[], object]) -> int:
    """How many functions, of Python and of C, a piece of work calls: it grows as the time does, on any machine."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def test_an_enode_takes_few_calls(extractable, record_property):
    """Every e-node's price and the extraction problem made of them."""
    pricing = Pricing(frozen=True, alternatives=True)
    missing, left = {}, {}
    extractable.problem(pricing, missing)
    warm = Pricing(frozen=True, measured=dict.fromkeys(missing, 1.0), alternatives=True)
    extractable.problem(warm, left)
    count = len(extractable.snapshot.nodes)
    assert count > ENODES // 4 and not left  # how many of what was added are equal is not known before
    calls = calls_within(lambda: extractable.problem(warm)) / count
    record_property("calls", calls)
    print(f"{calls:.1f} calls for each of {count} e-nodes")
    assert calls < LIMIT
