"""What operators do to the axes of one operand, and in which operands they are linear.

The laws of rewrites/principles.py are stated over these traits: an operator that has them gets its laws by a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch_eqsat.ir.operators import OPERATORS, Attrs
from torch_eqsat.ir.types import TensorType

Axes = frozenset[int]
ActedAxes = Callable[[Attrs, Sequence[TensorType], int], Axes]
"""Attributes, operand types and the position of an operand to the axes of that operand which are acted on."""


def _convolution(attrs: Attrs, types: Sequence[TensorType], _: int) -> Axes:
    """The channels, and the positions along which a window is wider than one or the output is shifted."""
    windows = zip(types[1].shape[2:], attrs["stride"], attrs["padding"], strict=True)
    return frozenset({1, *(axis for axis, window in enumerate(windows, 2) if window != (1, 1, 0))})


def _matmul(_: Attrs, types: Sequence[TensorType], position: int) -> Axes:
    """The axis that is summed over, and the batch: each of its matrices meets another."""
    rank = types[position].rank
    return frozenset(range(rank - 2)) | {rank - 1 if position == 0 else rank - 2}


def _pads(attrs: Attrs, _: Sequence[TensorType], __: int) -> Axes:
    return frozenset(axis for axis, pad in enumerate(attrs["pads"]) if any(pad))


def _indexed(attrs: Attrs, types: Sequence[TensorType], _: int) -> Axes:
    return frozenset(range(attrs["first"], types[0].rank))


def _named(attrs: Attrs, _: Sequence[TensorType], __: int) -> Axes:
    return frozenset([attrs["dim"]])


_ACTED: dict[tuple[str, int], ActedAxes] = {
    ("slice", 0): _named,
    ("flip", 0): _named,
    ("cumsum", 0): _named,
    ("reduce", 0): lambda attrs, _, __: frozenset(attrs["dims"]),
    ("avg_pool", 0): lambda _, __, ___: frozenset([2, 3]),
    ("max_pool", 0): lambda _, __, ___: frozenset([2, 3]),
    ("pad", 0): _pads,
    ("index", 0): _indexed,
    ("matmul", 0): _matmul,
    ("matmul", 1): _matmul,
    ("conv", 0): _convolution,
    ("conv_transpose", 0): _convolution,
}

# Operators that are linear in the operand at a position, the others given. Of reductions, sums and means are.
_LINEAR: dict[str, tuple[int, ...]] = {
    "matmul": (0, 1), "conv": (0, 1), "conv_transpose": (0, 1), "sdpa": (2,), "reduce": (0,), "avg_pool": (0,),
    "cumsum": (0,), "view": (0,), "permute": (0,), "expand": (0,), "slice": (0,), "flip": (0,), "diagonal": (0,),
    "pad": (0,), "index": (0,), "embedding": (0,), "embedding_bag": (0,),
}  # fmt: skip
LINEAR_REDUCTIONS = ("sum", "mean")


def acted_axes(op: str, attrs: Attrs, types: Sequence[TensorType], position: int) -> Axes | None:
    """The axes of the operand at ``position`` that ``op`` acts on; along every other axis it does the same to each
    slice, and the result has that axis at the same place, with the same size. None where axes do not correspond.

    >>> acted_axes("reduce", {"kind": "sum", "dims": (1,)}, [TensorType((4, 3), "float32")], 0)
    frozenset({1})
    """
    found = _ACTED.get((op, position))
    if found is None:
        return None
    if op == "index" and types[0].rank - attrs["first"] != max(t.rank for t in types[1:]):
        return None
    return found(attrs, types, position)


def is_linear(op: str, attrs: dict[str, Any] | Attrs, position: int) -> bool:
    """Whether ``op`` is linear in the operand at ``position``."""
    return position in _LINEAR.get(op, ()) and (op != "reduce" or attrs["kind"] in LINEAR_REDUCTIONS)


def is_selection(op: str) -> bool:
    """Whether each element of the result is an element of the (first) operand."""
    return "selection" in OPERATORS[op].traits


def mapped_positions() -> list[tuple[str, int]]:
    """Operators and operand positions for which :func:`acted_axes` knows the axes."""
    return list(_ACTED)


def linear_positions() -> list[tuple[str, int]]:
    """Operators and operand positions in which they are linear (reductions: for some kinds)."""
    return [(op, position) for op, positions in _LINEAR.items() for position in positions]
