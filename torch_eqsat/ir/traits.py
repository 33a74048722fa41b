"""What operators do to the axes of one operand, and in which operands they are linear.

The laws of rewrites/principles.py are stated over these traits: an operator that has them gets its laws by its record.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch_eqsat.ir.operator import Attrs, Axes
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.types import TensorType

LINEAR_REDUCTIONS = ("sum", "mean")


def acted_axes(op: str, attrs: Attrs, types: Sequence[TensorType], position: int) -> Axes | None:
    """The axes of the operand at ``position`` that ``op`` acts on; along every other axis it does the same to each
    slice, and the result has that axis at the same place, with the same size. None where axes do not correspond.

    >>> acted_axes("reduce", {"kind": "sum", "dims": (1,)}, [TensorType((4, 3), "float32")], 0)
    frozenset({1})
    """
    found = OPERATORS[op].acts_on.get(position)
    return None if found is None else found(attrs, types, position)


def is_linear(op: str, attrs: Attrs, position: int) -> bool:
    """Whether ``op`` is linear in the operand at ``position``."""
    return position in OPERATORS[op].linear_in and (op != "reduce" or attrs["kind"] in LINEAR_REDUCTIONS)


def is_selection(op: str) -> bool:
    """Whether each element of the result is an element of the (first) operand."""
    return "selection" in OPERATORS[op].traits


def mapped_positions() -> list[tuple[str, int]]:
    """Operators and operand positions for which :func:`acted_axes` knows the axes."""
    return [(op, position) for op, record in OPERATORS.items() for position in record.acts_on]


def linear_positions() -> list[tuple[str, int]]:
    """Operators and operand positions in which they are linear (reductions: for some kinds)."""
    return [(op, position) for op, record in OPERATORS.items() for position in record.linear_in]
