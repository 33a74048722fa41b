"""Engines that are used again: they know operators and laws, and hold nothing of e-graphs before."""

import pytest

from torch_eqsat.egraph.egraph import EGraph
from torch_eqsat.egraph.workshop import MOST_IDLE, Workshop
from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.laws.example import build_example
from torch_eqsat.rewrites import catalogue

LAWS = catalogue()
TEXTS = ("matmul(matmul([2, 3], [3, 4]), [4, 5])", "mul(add([4, 3, 3], [4, 1, 1]), [4, 1, 1])", "relu(relu([3]))")


@pytest.fixture
def workshop():
    shop = Workshop()
    yield shop
    shop.close()


def grown(text, shop):
    """What two steps of all laws make of a term, with a push and a pop between."""
    graph = TermGraph()
    graph.roots = [build_example(text, Builder(GraphStore(graph))).id]
    egraph = EGraph(LAWS, 2_000, workshop=shop)
    egraph.load(graph)
    egraph.push()
    egraph.apply(LAWS)
    egraph.pop()
    fired = [egraph.apply(LAWS).fired for _ in range(2)]
    snapshot = egraph.snapshot()
    egraph.close()
    return fired, snapshot.nodes, snapshot.classes, snapshot.terms, snapshot.laws


def test_a_used_engine_gives_what_a_new_one_gives(workshop):
    for text in (*TEXTS, *reversed(TEXTS)):
        assert grown(text, workshop) == grown(text, None)


def test_declarations_stay(workshop):
    grown(TEXTS[0], workshop)
    engine = workshop.take()
    assert {"node", "matmul_2"} & set(engine.declared) == {"matmul_2"}
    assert any(name.startswith("law_") for name in engine.declared)
    before = dict(engine.declared)
    engine.declare({"more": "(relation more (i64))"})
    engine.push()
    engine.pop()
    assert dict(engine.declared) == {**before, "more": "(relation more (i64))"}
    workshop.give_back(engine)


def test_few_engines_wait(workshop):
    engines = [workshop.take() for _ in range(MOST_IDLE + 2)]
    for engine in engines:
        workshop.give_back(engine)
    assert sum(engine._egraph is not None for engine in engines) == MOST_IDLE
    assert workshop.take() in engines
