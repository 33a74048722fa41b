"""Plans on disk: the chosen program of each graph, readable JSON, found again by what it depends on."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from torch_eqsat.cost.table import default_path
from torch_eqsat.ir.term import Node, TermGraph
from torch_eqsat.ir.types import TensorType

logger = logging.getLogger(__name__)

FORMAT = 1


def plan_path(key: str) -> Path:
    """Where the plan with ``key`` lies, beside the table of kernel times."""
    return default_path().parent / f"plans-v{FORMAT}" / f"{key}.json"


def load_plan(key: str) -> dict[str, Any] | None:
    """The stored plan, or None when there is none that can be read."""
    path = plan_path(key)
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("plan %s cannot be read and is not used: %s", path, error)
        return None
    return plan if isinstance(plan, dict) and plan.get("format") == FORMAT else None


def store_plan(key: str, plan: dict[str, Any]) -> None:
    """Write the plan in one step, so that other processes see all of it or nothing."""
    path = plan_path(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            json.dump({"format": FORMAT, **plan}, file, indent=1)
        os.replace(file.name, path)
    except OSError as error:
        logger.warning("plan %s cannot be stored: %s", path, error)


def forget_plan(key: str) -> None:
    """Remove the plan, if it is there."""
    with contextlib.suppress(OSError):
        plan_path(key).unlink()


def encode_program(graph: TermGraph, origin: list[int]) -> dict[str, Any]:
    """A program as JSON values."""
    return {
        "nodes": [[n.op, dict(n.attrs), list(n.children)] for n in graph.nodes],
        "types": [t and [list(t.shape), t.dtype] for t in graph.types],
        "constant": graph.constant,
        "roots": graph.roots,
        "origin": origin,
    }


def decode_program(data: dict[str, Any]) -> tuple[TermGraph, list[int]]:
    """The program that :func:`encode_program` wrote."""
    graph = TermGraph()
    for (op, attrs, children), type_, constant in zip(data["nodes"], data["types"], data["constant"], strict=True):
        node = Node(op, tuple(sorted((k, _tuples(v)) for k, v in attrs.items())), tuple(children))
        graph.add(node, type_ and TensorType(tuple(type_[0]), type_[1]), constant)
    graph.roots = data["roots"]
    return graph, data["origin"]


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
