"""Sessions: laws on an e-graph, with push and pop, limits and type checks."""

import pytest

from torch_eqsat.egraph.egraph import EGraph
from torch_eqsat.errors import UnsoundRewriteError
from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.term import Node, TermGraph
from torch_eqsat.laws.example import build_example
from torch_eqsat.laws.law import law, siblings
from torch_eqsat.rewrites import catalogue

LAWS = catalogue()
CHAIN = "matmul(matmul(matmul([2, 3], [3, 4]), [4, 5]), [5, 6])"


def graph_of(text: str) -> TermGraph:
    graph = TermGraph()
    graph.roots = [build_example(text, Builder(GraphStore(graph))).id]
    return graph


@pytest.fixture
def egraph():
    """Opens egraphs over an example and closes them."""
    opened = []

    def open_(text, laws=LAWS, **keywords):
        opened.append(EGraph(laws, **keywords))
        opened[-1].load(graph_of(text))
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


def state(egraph):
    snapshot = egraph.snapshot()
    rows = (snapshot.nodes, snapshot.classes, snapshot.terms, snapshot.laws, snapshot.types, snapshot.constant)
    return egraph.size, rows, [snapshot.find(i) for i in range(egraph.size)]


def named(name):
    return [item for item in LAWS if name in (item.name, item.declaration)]


def test_loaded_graph_is_the_snapshot(egraph):
    loaded = egraph(CHAIN)
    graph = graph_of(CHAIN)
    snapshot = loaded.snapshot()
    assert loaded.size == len(graph)
    assert snapshot.nodes == graph.nodes
    assert snapshot.classes == snapshot.terms == list(range(len(graph)))
    assert set(snapshot.laws) == {""}


def test_pop_restores_everything(egraph):
    open_ = egraph(CHAIN)
    states = [state(open_)]
    for _ in range(2):
        open_.push()
        assert open_.apply(LAWS).fired
        states.append(state(open_))
    assert states[0] != states[1] != states[2]
    open_.pop()
    assert state(open_) == states[1]
    open_.pop()
    assert state(open_) == states[0]


def test_the_same_happens_again_after_pop(egraph):
    open_ = egraph("add(matmul(x := [2, 3], mul([3, 4], [4])), matmul(x, [3, 4]))")
    runs = []
    for _ in range(3):
        open_.push()
        steps = [open_.apply(LAWS) for _ in range(3)]
        runs.append((steps, state(open_)))
        open_.pop()
    assert runs[0] == runs[1] == runs[2]


def test_new_arities_are_declared_again_after_pop(egraph):
    open_ = egraph("add(add(matmul(x := [2, 3], [3, 4]), matmul(x, [3, 4])), matmul(x, [3, 4]))")
    sizes = []
    for _ in range(2):
        open_.push()
        assert open_.apply(named("matmuls_of_one_input")).fired
        assert any(node.op == "cat" and len(node.children) == 3 for node in open_.snapshot().nodes)
        sizes.append(open_.size)
        open_.pop()
    assert sizes[0] == sizes[1]


def test_two_sessions_agree(egraph):
    states = []
    for _ in range(2):
        open_ = egraph("matmul(matmul(matmul(a := [2, 2], mul([2, 2], [2])), a), add([2, 2], [2]))")
        for _ in range(3):
            open_.apply(LAWS)
        states.append(state(open_))
    assert states[0] == states[1]


def test_saturation(egraph):
    open_ = egraph(CHAIN, named("matmul_is_associative"))
    laws = named("matmul_is_associative")
    for _ in range(10):
        if not (step := open_.apply(laws)).fired:
            break
    assert step.fired == {} and not step.truncated
    products = [c for c, n in zip(open_.snapshot().classes, open_.snapshot().nodes, strict=True) if n.op == "matmul"]
    assert len(products) == 10  # every way to read a product of four matrices: 3 + 2 * 2 + 3 * 1


def test_node_limit_truncates(egraph):
    open_ = egraph(CHAIN, limit=8)
    step = open_.apply(LAWS)
    assert step.truncated
    assert open_.size <= 8 + 16  # a right side that was begun is finished


def test_congruence(egraph):
    open_ = egraph("add(reduce(view(view(x := [2, 6], shape=[12]), shape=[3, 4]), kind='sum', dims=[0]), "
                    "reduce(view(x, shape=[3, 4]), kind='sum', dims=[0]))")  # fmt: skip
    before = open_.snapshot()
    sums = [i for i, node in enumerate(graph_nodes(open_)) if node.op == "reduce"]
    assert before.find(sums[0]) != before.find(sums[1])
    open_.apply(named("view_of_view"))
    after = open_.snapshot()
    assert after.find(sums[0]) == after.find(sums[1])
    assert len([node for node in after.nodes if node.op == "reduce"]) == 1


def graph_nodes(egraph):
    """Terms as loaded: in a fresh snapshot, e-node i is term i."""
    return egraph.snapshot().nodes


def test_equalities_of_the_graph_are_loaded():
    graph = graph_of("add([2], [2])")
    graph.equal.append((0, 1))
    egraph = EGraph(LAWS)
    egraph.load(graph)
    snapshot = egraph.snapshot()
    assert snapshot.find(1) == 0
    assert snapshot.nodes[-1] == Node("add", (), (0, 0))
    egraph.close()


@law("permute(x)")
def transpose_is_nothing(t, x):
    """xᵀ = x"""
    return x


@law("matmul(a, b)")
def factors_commute(t, a, b):
    """A B = B A"""
    return t.matmul(b, a)


def test_unsound_law_is_named(egraph):
    open_ = egraph("permute([2, 3], dims=[1, 0])", transpose_is_nothing)
    with pytest.raises(UnsoundRewriteError, match=r"law transpose_is_nothing \(.*test_egraph.py:\d+\) turns"):
        open_.apply(transpose_is_nothing)


def test_right_side_that_does_not_type_is_no_match(egraph):
    open_ = egraph("matmul([2, 3], [3, 4])", factors_commute)
    before = state(open_)
    assert open_.apply(factors_commute).fired == {}
    assert state(open_)[0] == before[0]


SEEN = []


@siblings("m := matmul(x, w)", shared="x", example="matmul([2, 3], [3, 4])")
def remember_groups(t, members):
    """Nothing is merged, all is seen."""
    SEEN.append([(member["m"].id, member["x"].id, member["w"].shape) for member in members])


def test_siblings_come_in_groups(egraph):
    SEEN.clear()
    products = [f"matmul(x, [3, {n}])" for n in (4, 4, 4)] + ["matmul(y := [2, 3], [3, 4])", "matmul(y, [3, 4])"]
    text = "matmul(x := [2, 3], [3, 4])"
    for product in products:
        text = f"add({text}, {product})"
    open_ = egraph(text + "", remember_groups)
    open_.apply(remember_groups)
    assert sorted(len(group) for group in SEEN) == [2, 4]
    assert all(len({x for _, x, _ in group}) == 1 for group in SEEN)


def test_siblings_that_depend_on_one_another_are_apart(egraph):
    SEEN.clear()
    egraph("matmul(x := [3, 3], matmul(x, [3, 3]))", remember_groups).apply(remember_groups)
    assert SEEN == []


def test_merged_siblings(egraph):
    open_ = egraph("add(matmul(x := [2, 3], [3, 4]), matmul(x, [3, 4]))")
    step = open_.apply(named("matmuls_of_one_input"))
    assert step.fired == {"matmuls_of_one_input": 2}
    assert [node["stop"] for node in open_.snapshot().nodes if node.op == "slice"] == [4, 8]
    assert open_.apply(named("matmuls_of_one_input")).fired == {}
