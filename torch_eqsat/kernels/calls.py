"""The two kernels as calls of a graph, and the calls of ATen that each of them stands for.

`SPLIT_TILES(x, rows, row_filters, columns, column_filters, corner, step, tiles)` pads images [n, c, h, w] with zeros,
of which ``corner`` says how many stand above and to the left, and applies a bank of filters to the rows of each tile
and one to its columns; a tile begins ``step`` after the last. The result has the shape [n, column_filters · row_filters
· c, *tiles].

`JOIN_TILES(x, rows, row_filters, columns, column_filters, size, steps, operands)` makes an image of ``size`` of such
tiles, by sums of their channels, and takes the ``steps`` that follow along (`source.STEPS`, the first one lowest).

Matrices are lists of their rows, as torch's schemas have no matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from torch_eqsat.graph.emitter import aten
from torch_eqsat.graph.whole import NAMESPACE, filter_bank, planned
from torch_eqsat.kernels.source import MOST_OPERANDS, STEP_BITS, STEPS, Matrix

_LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")
_MATRICES = "float[] rows, int row_filters, float[] columns, int column_filters"
_LIBRARY.define(f"split_tiles(Tensor x, {_MATRICES}, int[] corner, int[] step, int[] tiles) -> Tensor")
_LIBRARY.define(f"join_tiles(Tensor x, {_MATRICES}, int[] size, int steps, Tensor[] operands) -> Tensor")


def matrix(numbers: Sequence[float], filters: int) -> Matrix:
    """The matrix of ``filters`` rows whose numbers are these, in order."""
    taps = len(numbers) // filters
    return tuple(tuple(numbers[k * taps : (k + 1) * taps]) for k in range(filters))


def flat(rows: Matrix) -> list[float]:
    """The numbers of a matrix, in order."""
    return [number for row in rows for number in row]


def step_names(steps: int) -> Iterator[str]:
    """The names of packed ``steps``."""
    while steps:
        yield STEPS[steps % (1 << STEP_BITS)]
        steps >>= STEP_BITS


def packed(names: Sequence[str]) -> int:
    """Steps as one number: `step_names` gives their names again."""
    return sum(STEPS.index(name) << STEP_BITS * k for k, name in enumerate(names))


def _call(target: Any, *args: Any) -> Any:
    return target(*args)


def _split(
    x: Tensor,
    rows: Sequence[float],
    row_filters: int,
    columns: Sequence[float],
    column_filters: int,
    corner: Sequence[int],
    step: Sequence[int],
    tiles: Sequence[int],
) -> Tensor:
    taps = (len(rows) // row_filters, len(columns) // column_filters)
    pads = [
        (before, (count - 1) * by + window - size - before)
        for before, count, by, window, size in zip(corner, tiles, step, taps, x.shape[2:], strict=True)
    ]
    padded = aten.constant_pad_nd.default(x, [*pads[1], *pads[0]], 0.0)
    y = filter_bank(_call, padded, 2, 1, step[0], 1, rows, row_filters)
    return filter_bank(_call, y, 3, 1, step[1], 1, columns, column_filters)


def _join(
    x: Tensor,
    rows: Sequence[float],
    row_filters: int,
    columns: Sequence[float],
    column_filters: int,
    size: Sequence[int],
    steps: int,
    operands: Sequence[Tensor],
) -> Tensor:
    height, width = size
    images, channels, down, across = x.shape
    left = channels * column_filters // len(columns)  # once columns are summed
    channels = left * row_filters // len(rows)
    y = filter_bank(_call, x.reshape(*x.shape, 1), 1, 4, 1, left, columns, column_filters)
    y = y.reshape(images, left, down, 1, across * column_filters)[..., :width]
    y = filter_bank(_call, y, 1, 3, 1, channels, rows, row_filters)
    y = y.reshape(images, channels, down * row_filters, width)[:, :, :height]
    rest = iter(operands)
    for name in step_names(steps):
        y = _step(name, y, rest)
    return y


def _step(name: str, y: Tensor, operands: Iterator[Tensor]) -> Tensor:
    if name == "relu":
        return y.relu()
    operand = next(operands)
    if name == "add_image":
        return y + operand
    one = operand.reshape(-1, 1, 1)
    return {"add": torch.add, "sub": torch.sub, "mul": torch.mul}[name](y, one)


def split_by_calls(rows: Matrix, columns: Matrix) -> Callable[..., None]:
    """What the kernel of `source.split_source` does, with the same arguments."""

    def kernel(x: Tensor, y: Tensor, *place: int) -> None:
        top, left, step_h, step_w = place[7:11]  # as `source.split_source` has them
        corner, step = (top, left), (step_h, step_w)
        y.copy_(_split(x, flat(rows), len(rows), flat(columns), len(columns), corner, step, y.shape[2:]))

    return kernel


def join_by_calls(rows: Matrix, columns: Matrix) -> Callable[..., None]:
    """What the kernel of `source.join_source` does, with the same arguments."""

    def kernel(x: Tensor, y: Tensor, *rest: Any) -> None:
        # As `source.join_source` has them: as many operands as there may be, of which the steps read the first ones.
        operands, steps = rest[:MOST_OPERANDS], rest[-2]
        y.copy_(_join(x, flat(rows), len(rows), flat(columns), len(columns), y.shape[2:], steps, operands))

    return kernel


for _name, _run in (("split_tiles", _split), ("join_tiles", _join)):
    _LIBRARY.impl(_name, _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{_name}", planned(_run), lib=_LIBRARY)
SPLIT_TILES = torch.ops.torch_eqsat.split_tiles.default
JOIN_TILES = torch.ops.torch_eqsat.join_tiles.default
