"""Runs terms on tensors, to check laws, e-graphs and rewritten programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.graph.emitter import Evaluator, torch_dtype
from torch_eqsat.graph.lowering import lower
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.term import Node, TermGraph
from torch_eqsat.ir.types import FLOATING, HALF, TensorType

SPECIAL = (float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1.0, -1.0)


@dataclass(frozen=True, slots=True)
class Drawing:
    """How input values are drawn: "integers" from −4 to 4, "normal" (standard), "special" (NaN, ±∞, ±0, ±1).

    ``dtype`` is used for inputs whose type is float32. ``strided`` inputs have gaps in memory and axes in reversed
    order.
    """

    kind: str = "integers"
    dtype: str = "float64"
    strided: bool = False
    seed: int = 0


def draw_inputs(graph: TermGraph, drawing: Drawing) -> dict[int, Tensor]:
    """A tensor for each input term of ``graph``. Indices are within the bounds of the axes that they index."""
    bounds = _bounds(graph)
    inputs = {}
    for number, node in enumerate(graph.nodes):
        type_ = graph.types[number]
        if node.op == "input" and type_ is not None:
            generator = torch.Generator().manual_seed(1_000 * drawing.seed + number)
            value = draw_input(node, type_, drawing, generator, bounds.get(number, 2))
            # Kernels of embedding bags ignore the strides of offsets, so indices are contiguous.
            inputs[number] = _strided(value) if drawing.strided and value.dtype != torch.int64 else value
    return inputs


def _bounds(graph: TermGraph) -> dict[int, int]:
    """For each term that is an index, the smallest size of the axes that it indexes."""
    bounds: dict[int, int] = {}
    for number in graph.reachable(graph.roots):
        node = graph.nodes[number]
        for position, axis in OPERATORS[node.op].looks_up(dict(node.attrs), len(node.children)):
            table, child = graph.types[node.children[0]], node.children[position]
            assert table is not None
            bounds[child] = min(table.shape[axis], bounds.get(child, table.shape[axis]))
    return bounds


def draw_input(node: Node, type_: TensorType, drawing: Drawing, generator: torch.Generator, bound: int = 2) -> Tensor:
    """A value for one input term; integers are below ``bound``."""
    shape, facts = type_.shape, dict(node.attrs)
    if "repeats" in facts:
        return (torch.arange(type_.numel) // facts["repeats"]).reshape(shape)
    if "eye" in facts:
        return torch.eye(*shape).to(torch_dtype(type_.dtype))
    if "upper" in facts:
        return torch.ones(shape).triu(1).to(torch_dtype(type_.dtype))
    if type_.dtype in ("int64", "bool"):
        drawn = torch.randint(0, bound if type_.dtype == "int64" else 2, shape, generator=generator)
        return drawn.to(torch_dtype(type_.dtype))
    own = _evaluated(type_.dtype, drawing.dtype) if type_.dtype in HALF else drawing.dtype
    dtype = torch_dtype(own if type_.dtype in FLOATING else type_.dtype)
    if "value" in facts:
        return torch.full(shape, facts["value"], dtype=dtype)
    if drawing.kind == "normal" and dtype.is_floating_point:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    if drawing.kind == "special":
        picks = torch.randint(0, len(SPECIAL), shape, generator=generator)
        return torch.tensor(SPECIAL, dtype=torch.float64)[picks].to(dtype)
    return torch.randint(-4, 5, shape, generator=generator).to(dtype)


def _strided(value: Tensor) -> Tensor:
    """The same values with strides of two elements, the last axis outermost."""
    if not value.dim():
        return value
    reversed_axes = list(range(value.dim()))[::-1]
    room = torch.zeros([2 * n for n in reversed(value.shape)], dtype=value.dtype)
    laid = room[tuple(slice(None, None, 2) for _ in reversed_axes)].permute(reversed_axes)
    return laid.copy_(value)


def evaluate(
    graph: TermGraph, inputs: Mapping[int, Tensor], dtype: str = "float64", roots: Sequence[int] | None = None
) -> dict[int, Tensor]:
    """The value of every term (or of those below ``roots``), with ``dtype`` in place of float32, and float64 in place
    of all floating dtypes."""
    values = dict(inputs)
    for number in range(len(graph)) if roots is None else graph.reachable(roots):
        node = graph.nodes[number]
        if number in values:
            continue
        types = [t for child in node.children if (t := graph.types[child]) is not None]
        value = values[number] = apply(node, [values[child] for child in node.children], types, dtype)
        type_ = graph.types[number]
        assert type_ is not None
        expected = torch_dtype(_evaluated(type_.dtype, dtype))
        if value.dtype != expected:
            raise TypeMismatchError(f"{node.op} of {types} is {value.dtype}, its type says {expected}")
    return values


def apply(node: Node, args: Sequence[Tensor], types: Sequence[TensorType], dtype: str) -> Tensor:
    """One operator on tensors. An opaque elementwise function is replaced by one without algebraic identities."""
    if node.op == "pointwise":
        return _opaque(args)
    attrs = tuple((name, _evaluated(value, dtype) if name == "dtype" else value) for name, value in node.attrs)
    value = lower(Evaluator(), Node(node.op, attrs, node.children), args, types)
    return torch.tensor(value, dtype=torch_dtype(dict(attrs)["dtype"])) if isinstance(value, (int, float)) else value


def _evaluated(dtype: str, chosen: str) -> str:
    """The dtype in which a term of ``dtype`` is evaluated: float32 as ``chosen``, and in doubles the halves too, which
    so are not rounded."""
    return chosen if dtype == "float32" or (chosen == "float64" and dtype in HALF) else dtype


def _opaque(args: Sequence[Tensor]) -> Tensor:
    """The cube of 1 plus the alternating sum."""
    total = torch.ones((), dtype=args[0].dtype)
    for i, arg in enumerate(args):
        total = total + (arg if i % 2 == 0 else -arg)
    return total**3


def is_exact(graph: TermGraph, roots: Sequence[int]) -> bool:
    """Whether small integers in float64 stay exact in the terms below ``roots``."""
    nodes = [graph.nodes[number] for number in graph.reachable(roots)]
    return all(OPERATORS[node.op].exact(dict(node.attrs)) for node in nodes) and all(
        number * 1024 % 1 == 0 for node in nodes for number in _numbers(node)
    )


def _numbers(node: Node) -> list[float]:
    """The constants that ``node`` computes with."""
    attrs = dict(node.attrs)
    return [attrs.get("value", 0.0), *(c for row in attrs.get("coefficients", ()) for c in row)]


def takes_integers(graph: TermGraph, roots: Sequence[int]) -> bool:
    """Whether the terms below ``roots`` also occur on integers in captured graphs."""
    ops = {graph.nodes[number].op for number in graph.reachable(roots)}
    return all({"selection", "joins", "integers"} & OPERATORS[op].traits for op in ops)


def only_moves(graph: TermGraph, roots: Sequence[int]) -> bool:
    """Whether the terms below ``roots`` only move elements, so that any dtype is allowed."""
    ops = {graph.nodes[number].op for number in graph.reachable(roots)}
    return all({"selection", "joins"} & OPERATORS[op].traits for op in ops)
