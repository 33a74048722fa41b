"""Reader of the egraph-serialize JSON format, in which e-graph tools exchange extraction problems."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from torch_eqsat.extract.problem import ExtractionProblem, build_problem


@dataclass(frozen=True, slots=True)
class NamedProblem:
    """An extraction problem with the names that its file gave to e-nodes and e-classes."""

    problem: ExtractionProblem
    node_names: list[str]
    """e-node -> its id in the file."""
    node_operators: list[str]
    """e-node -> its operator, as written in the file."""
    class_names: list[str]
    """e-class -> its id in the file."""


def read_egraph_json(path: Path) -> NamedProblem:
    """Read a file of the format; costs are taken as milliseconds.

    The format names an e-node's operands by e-nodes; what counts is the e-class they belong to.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    nodes = content["nodes"]
    class_index: dict[str, int] = {}
    for node in nodes.values():
        class_index.setdefault(node["eclass"], len(class_index))
    node_class = {name: class_index[node["eclass"]] for name, node in nodes.items()}
    problem = build_problem(
        (
            (node_class[name], tuple(node_class[child] for child in node["children"]), float(node["cost"]))
            for name, node in nodes.items()
        ),
        tuple(class_index[root] for root in content["root_eclasses"]),
        len(class_index),
    )
    operators = [node["op"] for node in nodes.values()]
    return NamedProblem(problem, list(nodes), operators, list(class_index))
