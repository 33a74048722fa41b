"""The benchmarks of search and extraction: their rows, their prices, their pictures."""

import json
import sys
from dataclasses import asdict

import pytest

from bench.models.paper_graphs import GRAPHS, captured, task_of
from bench.search import paper, plots, scale
from bench.search.standalone import Operation, standalone
from torch_eqsat.cost.programs import captured_program
from torch_eqsat.ir.term import Node, attributes
from torch_eqsat.ir.types import TensorType
from torch_eqsat.search.parameters import SearchParameters


def test_nine_graphs():
    assert len(GRAPHS) == 9


@pytest.mark.parametrize(("name", "products"), [("bert", 48), ("nasrnn", 80)])
def test_products_of_a_graph(name, products):
    """Eight blocks of four layers and two products of attention; five steps of sixteen products."""
    task = task_of(captured(GRAPHS[name]))
    assert sum(node.op == "matmul" for node in task.graph.nodes) == products


def test_operations_are_told_apart_by_shapes_and_attributes():
    types = (TensorType((2, 3), "float32"),)
    first = Operation(Node("reduce", attributes(kind="sum", dims=(1,)), ()), types)
    second = Operation(Node("reduce", attributes(kind="sum", dims=(0,)), ()), types)
    assert first.key != second.key
    assert first.key == "reduce float32[2, 3] dims=(1,) kind=sum"


def test_prices_come_from_the_table():
    task = task_of(captured(GRAPHS["nasrnn"]))
    unknown = standalone({})
    captured_program(task, unknown)
    keys = [*unknown.lacking, *unknown.missing]
    assert keys
    known = standalone(dict.fromkeys(keys, 2.0))
    program = captured_program(task, known)
    assert not known.lacking and not known.missing
    # Views and constants are free; the 80 products, 55 sums, 20 products of gates and 75 functions are not.
    assert program.cost == pytest.approx(2.0 * (80 + 55 + 20 + 75), rel=1e-3)


def row(strategy, best, nodes=2000):
    return {
        "graph": "bert", "strategy": strategy, "seed": 0, "node_limit": nodes,
        "base_ms": 2.0, "best_ms": best, "seconds": 1.0, "stop": "saturated", "limit_seconds": 60.0,
    }  # fmt: skip


def test_table(capsys):
    paper.print_table([row("saturation", 1.5), row("mcts", 1.0)], 2000)
    lines = capsys.readouterr().out.splitlines()
    assert "25.00 (0.00)" in lines[3] and "50.00 (0.00)" in lines[3]
    assert lines[4].startswith("mean")
    assert lines[5] == "saturation: 1 seed, at most 60 s a search, which ended 0 of 1"


def test_rows_survive_a_file(tmp_path):
    path = tmp_path / "rows.json"
    assert paper.read(path) == paper.Results(asdict(SearchParameters()), [])
    results = paper.Results(asdict(SearchParameters()), [row("mcts", 1.0), row("none", 2.0)])
    paper.write(path, results)
    assert paper.read(path) == results and vars(results) == json.loads(path.read_text())


def test_rows_of_other_parameters_are_not_mixed(tmp_path, monkeypatch, capsys):
    then = asdict(SearchParameters(patience=1)) | {"of_old": 3}
    results = paper.Results(then, [row("mcts", 1.0)])
    assert results.changed() == ["of_old", "patience"]
    paper.write(tmp_path / "rows.json", results)
    monkeypatch.setattr(paper, "RESULTS", tmp_path / "rows.json")
    monkeypatch.setattr(paper, "CURVES", tmp_path / "curves.json")
    monkeypatch.setattr(sys, "argv", ["paper", "--graphs", "bert", "--strategies", "none"])
    with pytest.raises(SystemExit):
        paper.main()
    assert "(of_old, patience)" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["paper", "--table"])
    paper.main()
    assert "'patience': 1" in capsys.readouterr().out


def test_exponent():
    rows = [{"nodes": n, "seconds": 0.5 * n**1.25, "peak_bytes": 1} for n in (10, 100, 1000)]
    assert scale.exponent(rows) == pytest.approx(1.25)


def test_costs_only_fall():
    assert plots.best_so_far([(0.0, 3.0), (2.0, 2.0), (1.0, 4.0)]) == ([0.0, 1.0, 2.0], [3.0, 3.0, 2.0])


def test_tree_is_laid_out_by_depth():
    tree = [{"parent": -1}, {"parent": 0}, {"parent": 0}, {"parent": 1}]
    places = plots.tree_positions(tree)
    assert [depth for _, depth in places] == [0, 1, 1, 2]
    assert len({across for across, depth in places if depth == 1}) == 2


@pytest.mark.slow
def test_pictures(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="needs the package matplotlib (in the extra bench)")
    tree = [
        {"parent": -1, "move": "", "visits": 2, "value": 0.5},
        {"parent": 0, "move": "a", "visits": 1, "value": 0.1},
    ]
    key = {"graph": "bert", "strategy": "mcts", "seed": 0, "node_limit": 2000}
    curve = key | {"curve": [(0.0, 2.0), (1.0, 1.0)], "growth": [(0, 9)], "tree": tree}
    paper.write(tmp_path / "curves.json", paper.Results(None, [curve]))
    paper.write(tmp_path / "rows.json", paper.Results(None, [row("mcts", 1.0), row("mcts", 0.9, 5000)]))
    monkeypatch.setattr(plots, "CURVES", tmp_path / "curves.json")
    monkeypatch.setattr(plots, "RESULTS", tmp_path / "rows.json")
    monkeypatch.setattr("sys.argv", ["plots", "--out", str(tmp_path / "out")])
    plots.main()
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"cost_2000.svg", "growth_2000.svg", "tree_bert_2000.svg", "limits.svg"}
