"""The reader of the egraph-serialize format."""

from __future__ import annotations

import json
from pathlib import Path

from bench.search.egraph_json import read_egraph_json


def test_operands_are_e_classes_of_the_named_e_nodes(tmp_path: Path) -> None:
    nodes = {
        "x0": {"op": "Input", "cost": 0.0, "eclass": "x", "children": []},
        "y0": {"op": "Relu", "cost": 1.5, "eclass": "y", "children": ["x0"]},
        "y1": {"op": "Add", "cost": 2.0, "eclass": "y", "children": ["x0", "y0"]},
    }
    path = tmp_path / "graph.json"
    path.write_text(json.dumps({"nodes": nodes, "root_eclasses": ["y"]}))
    named = read_egraph_json(path)
    assert named.problem.node_children == [(), (0,), (0, 1)]
    assert named.problem.node_cost == [0.0, 1.5, 2.0]
    assert named.problem.class_nodes == [[0], [1, 2]]
    assert named.problem.roots == (1,)
    assert named.node_names == ["x0", "y0", "y1"]
    assert named.node_operators == ["Input", "Relu", "Add"]
    assert named.class_names == ["x", "y"]
