"""Functions of shapes that several families of laws use."""

from __future__ import annotations

import math
from collections.abc import Collection

from torch_eqsat.ir.builder import Handle
from torch_eqsat.ir.types import broadcast_shapes


def aligned(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """``shape`` with leading ones, as broadcasting to ``rank`` axes reads it.

    >>> aligned((3, 1), 4)
    (1, 1, 3, 1)
    """
    return (1,) * (rank - len(shape)) + shape


def varies_only_along(c: Handle, axes: Collection[int], rank: int) -> bool:
    """Whether ``c``, broadcast to ``rank`` axes, is constant along every axis outside of ``axes``."""
    return c.rank <= rank and all(n == 1 or i in axes for i, n in enumerate(aligned(c.shape, rank)))


def small(x: Handle, *factors: Handle) -> bool:
    """Whether the broadcast of ``factors`` has fewer elements than ``x`` and broadcasts into it.

    This guard directs the laws of associativity and distribution: small operands gather with small ones, which
    normalises sums and products without the explosion of free associativity and commutativity.
    """
    shape = broadcast_shapes(f.shape for f in factors)
    return math.prod(shape) < x.numel and broadcast_shapes([shape, x.shape]) == x.shape


def narrow(x: Handle) -> bool:
    """Whether sums in ``x``'s dtype may overflow: in float16, which ends at 65,504. They do if a factor below one is
    applied after the sum instead of before, or if the sum is taken outside of a matrix product, which sums in float32.
    Products of small factors, that is, of constants, are gathered all the same: no scale is near 65,504."""
    return x.type.dtype == "float16"


def is_pointwise_convolution(conv: Handle, weight: Handle) -> bool:
    """Whether a convolution only mixes channels: 1x1 kernel, stride 1, no padding."""
    return all(n == 1 for n in weight.shape[2:] + conv["stride"]) and not any(conv["padding"])


def slice_before_view(
    source: tuple[int, ...], target: tuple[int, ...], dim: int, start: int, stop: int
) -> tuple[int, int, int] | None:
    """The slice (axis, start, stop) of a tensor of shape ``source`` with the elements of ``start:stop`` along ``dim``
    of its view as ``target``; None if there is no such slice.

    >>> slice_before_view((1, 128, 312), (128, 312), 0, 0, 1)
    (1, 0, 1)
    >>> slice_before_view((6, 4), (2, 3, 4), 0, 1, 2)
    (0, 3, 6)
    """
    outer, inner = math.prod(target[:dim]), math.prod(target[dim + 1 :])
    for axis in reversed(range(len(source))):
        width = math.prod(source[axis + 1 :])
        if math.prod(source[:axis]) == outer and start * inner % width == 0 and stop * inner % width == 0:
            return axis, start * inner // width, stop * inner // width
    return None
