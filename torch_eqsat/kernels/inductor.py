"""How Inductor compiles the two kernels: as calls of `tiles.py` from its generated code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

from torch._inductor import config, ir
from torch._inductor import lowering as inductor_lowering
from torch.fx import Graph

from torch_eqsat.kernels import tiles
from torch_eqsat.kernels.calls import JOIN_TILES, SPLIT_TILES, matrix, step_names
from torch_eqsat.kernels.joins import make_joins
from torch_eqsat.kernels.splits import make_splits


class _Tiles(ir.ExternKernelOut):  # type: ignore[misc]
    """A call of ours that writes into a buffer of Inductor's."""

    def codegen(self, wrapper: Any) -> None:
        wrapper.add_import_once(f"from {tiles.__name__} import split_tiles, join_tiles")
        super().codegen(wrapper)


def use_kernels(graph: Graph) -> None:
    """Put our kernels into ``graph`` where they fit, if generated code can call them: not from C++ wrappers."""
    if not config.cpp_wrapper:
        make_splits(graph)
        make_joins(graph)


@contextlib.contextmanager
def lowered_kernels() -> Iterator[None]:
    """Compile in here: Inductor knows our calls."""
    ours = {SPLIT_TILES: _lower_split, JOIN_TILES: _lower_join}
    with mock.patch.dict(inductor_lowering.lowerings, ours):
        yield


def _lower_split(
    x: Any,
    rows: Sequence[float],
    row_filters: int,
    columns: Sequence[float],
    column_filters: int,
    corner: Sequence[int],
    step: Sequence[int],
    down_across: Sequence[int],
) -> Any:
    images, channels, _, _ = x.get_size()
    matrices = tiles.spelled(matrix(rows, row_filters), matrix(columns, column_filters))
    tiles.prepare(matrices, joins=False)
    size = [images, channels * row_filters * column_filters, *down_across]
    return _made("split_tiles", size, x, (), matrices, *corner, *step)


def _lower_join(
    x: Any,
    rows: Sequence[float],
    row_filters: int,
    columns: Sequence[float],
    column_filters: int,
    size: Sequence[int],
    steps: int,
    operands: Sequence[Any],
) -> Any:
    matrices = tiles.spelled(matrix(rows, row_filters), matrix(columns, column_filters))
    tiles.prepare(matrices, joins=True)
    images, channels, _, _ = x.get_size()
    channels = channels * row_filters * column_filters // (len(rows) * len(columns))
    names = [name for name in step_names(steps) if name != "relu"]
    others = [
        ir.ExternKernel.require_channels_last(o) if name == "add_image" else ir.ExternKernel.require_contiguous(o)
        for name, o in zip(names, map(ir.ExternKernel.realize_input, operands), strict=True)
    ]
    return _made("join_tiles", [images, channels, *size], x, others, matrices, steps)


def _made(name: str, size: Sequence[Any], x: Any, others: Sequence[Any], *constants: Any) -> Any:
    image = ir.ExternKernel.require_channels_last(ir.ExternKernel.realize_input(x))
    _, channels, height, width = size
    strides = [height * width * channels, 1, width * channels, channels]
    layout = ir.FixedLayout(x.get_device(), x.get_dtype(), size, strides)
    call = _Tiles(layout, [image, *others], constants, python_kernel_name=name)
    return ir.TensorBox.create(call)
