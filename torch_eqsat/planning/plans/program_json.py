"""Programs as JSON values, and back, where nothing is believed that can be inferred."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_eqsat.errors import PlanError, TypeMismatchError
from torch_eqsat.ir.operators import OPERATORS, infer_type
from torch_eqsat.ir.term import Attributes, Node, TermGraph
from torch_eqsat.ir.types import TensorType

CAPTURED = ("input", "fx")  # operators whose types are not inferred: they are as captured


def encode_program(graph: TermGraph, origin: Sequence[int]) -> dict[str, Any]:
    """A program as JSON values."""
    return {
        "nodes": [[n.op, dict(n.attrs), list(n.children)] for n in graph.nodes],
        "types": [t and [list(t.shape), t.dtype] for t in graph.types],
        "constant": graph.constant,
        "roots": graph.roots,
        "origin": list(origin),
    }


def decode_program(data: dict[str, Any]) -> tuple[TermGraph, tuple[int, ...]]:
    """The program that :func:`encode_program` wrote, and its origins.

    Raises PlanError for one that no search can have written: of unknown operators, operands that do not come first,
    types that do not follow from those of the operands.
    """
    graph = TermGraph()
    try:
        for row in zip(data["nodes"], data["types"], data["constant"], data["origin"], strict=True):
            (op, attrs, children), type_, constant, _ = row
            node = Node(op, tuple(sorted((k, _tuples(v)) for k, v in attrs.items())), tuple(children))
            _check_node(graph, node)
            found = type_ and TensorType(tuple(type_[0]), type_[1])
            _check_type(graph, node, found)
            place = len(graph)
            if graph.add(node, found, constant) != place:
                raise PlanError(f"term {place} is written twice")
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError) as error:
        raise PlanError(f"term {len(graph)} cannot be read: {type(error).__name__}: {error}") from error
    if not all(0 <= root < len(graph) for root in data["roots"]):
        raise PlanError(f"a root is none of its {len(graph)} terms")
    graph.roots = list(data["roots"])
    return graph, tuple(data["origin"])


def _check_node(graph: TermGraph, node: Node) -> None:
    operator = OPERATORS.get(node.op)
    if operator is None:
        raise PlanError(f"term {len(graph)} has the operator {node.op!r}, which is unknown")
    if operator.arity not in (None, len(node.children)):
        raise PlanError(f"term {len(graph)}, {node.op}, has {len(node.children)} operands, not {operator.arity}")
    if not all(0 <= child < len(graph) for child in node.children):
        raise PlanError(f"term {len(graph)} has the operands {list(node.children)}, which do not come before it")


def _check_type(graph: TermGraph, node: Node, type_: TensorType | None) -> None:
    if type_ is not None and not type_.is_known and node.op not in CAPTURED:
        raise PlanError(f"term {len(graph)} has the dtype {type_.dtype!r}, which is unknown")
    if node.op in CAPTURED:
        return
    types = [t for child in node.children if (t := graph.types[child]) is not None]
    if len(types) != len(node.children):
        raise PlanError(f"term {len(graph)}, {node.op}, has an operand that is no tensor")
    try:
        inferred = infer_type(node.op, dict(node.attrs), types)
    except TypeMismatchError as error:
        raise PlanError(f"term {len(graph)} has operands that do not fit: {error}") from error
    if inferred != type_:
        raise PlanError(f"term {len(graph)}, {node.op}, is {inferred} and not {type_}")


def check_fits(graph: TermGraph, origin: Sequence[int], captured: TermGraph) -> None:
    """Raise PlanError if the program is not one for the ``captured`` graph: it has other inputs, calls or outputs, or a
    term has another type than the captured one that it stands for."""
    if [graph.types[root] for root in graph.roots] != [captured.types[root] for root in captured.roots]:
        raise PlanError("its outputs have other types than those of the graph")
    known: dict[tuple[str, Attributes], set[TensorType | None]] = {}
    for node, type_ in zip(captured.nodes, captured.types, strict=True):
        known.setdefault((node.op, node.attrs), set()).add(type_)
    for index, (node, type_) in enumerate(zip(graph.nodes, graph.types, strict=True)):
        if node.op in CAPTURED and type_ not in known.get((node.op, node.attrs), ()):
            raise PlanError(f"term {index}, {node.op} : {type_}, is not in the graph")
        if not -1 <= origin[index] < len(captured):
            raise PlanError(f"term {index} has the origin {origin[index]}, which is none of {len(captured)} terms")
        if origin[index] >= 0 and captured.types[origin[index]] != type_:
            raise PlanError(f"term {index} : {type_} stands for a captured {captured.types[origin[index]]}")


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
