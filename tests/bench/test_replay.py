"""The replay of choices: one block a graph, equal code gives equal text, differences are told by graph."""

import math

import pytest

from bench import replay
from bench.laws.hand_rewrites.evaluate import use_recorded_times

GCN = "== gcn\nrewritten\n2.0 -> 1.0 ms; saturated\n"
BAG = "== bag\nleft\n2.0 -> 2.0 ms; saturated\n"


def test_files_are_compared_by_graph():
    assert replay.differences(GCN + BAG, GCN + BAG) == []
    assert replay.differences(GCN + BAG, BAG + GCN) == []
    changed = GCN.replace("1.0 ms", "1.5 ms")
    assert replay.differences(GCN + BAG, changed + BAG) == [
        "== gcn",
        "@@ -2 +2 @@",
        "-2.0 -> 1.0 ms; saturated",
        "+2.0 -> 1.5 ms; saturated",
    ]
    assert replay.differences(GCN, GCN + BAG)[0] == "== bag"


def test_corpus():
    assert len(replay.corpus()) >= 60


@pytest.mark.slow
def test_a_block(fresh, one_thread):
    use_recorded_times()
    first, again = (replay.replayed("gcn", replay.corpus()["gcn"]()) for _ in range(2))
    assert first == again
    title, decision, costs, laws, *graph = first.splitlines()
    assert title == "== gcn" and decision.startswith("rewritten") and costs.endswith("saturated")
    before, after = (float(cost.split()[0]) for cost in costs.split(" -> "))
    assert 0 < after < 0.5 * before < math.inf and laws.startswith("laws: ")
    assert graph[0] == "graph():" and graph[-1].strip().startswith("return")
    assert "%bmm_default" in first or "%mm_default" in first
