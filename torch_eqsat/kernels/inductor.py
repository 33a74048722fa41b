"""How Inductor compiles the two kernels: as calls of `tiles.py` from its generated code."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from torch._inductor import config, ir
from torch._inductor import lowering as inductor_lowering
from torch.fx import Graph

from torch_eqsat.errors import first_line
from torch_eqsat.kernels import tiles
from torch_eqsat.kernels.calls import JOIN_TILES, SPLIT_TILES, matrix, step_names
from torch_eqsat.kernels.joins import make_joins
from torch_eqsat.kernels.splits import make_splits

logger = logging.getLogger(__name__)


class _Tiles(ir.ExternKernelOut):
    """A call of ours that writes into a buffer of Inductor's."""

    def codegen(self, wrapper: Any) -> None:
        wrapper.add_import_once(f"from {tiles.__name__} import split_tiles, join_tiles")
        super().codegen(wrapper)


def use_kernels(graph: Graph) -> None:
    """Put our kernels into ``graph`` where they fit, if generated code can call them: not from C++ wrappers. What is
    not understood stays as it is, with one line in the log."""
    if config.cpp_wrapper:
        return
    try:
        make_splits(graph)
        make_joins(graph)
    except Exception as error:  # each kernel is put in as a whole, so that the graph means what it did
        logger.warning("banks of filters stay apart: %s: %s", type(error).__name__, first_line(error))


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
    return _made("split_tiles", size, _with_channels_together(x), (), matrices, *corner, *step)


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
        _dense(o) if name == "add_image" else ir.ExternKernel.require_contiguous(ir.ExternKernel.realize_input(o))
        for name, o in zip(names, operands, strict=True)
    ]
    return _made("join_tiles", [images, channels, *size], _dense(x), others, matrices, steps)


def _made(name: str, size: Sequence[Any], x: Any, others: Sequence[Any], *constants: Any) -> Any:
    layout = ir.FixedLayout(x.get_device(), x.get_dtype(), size, _channels_last(size))
    return ir.TensorBox.create(_Tiles(layout, [x, *others], constants, python_kernel_name=name))


def _dense(x: Any) -> Any:
    """``x`` channels-last and without gaps. Only the order of strides is what `require_channels_last` asks for: half of
    the channels of an image pass there, which stand apart in memory."""
    return ir.ExternKernel.require_exact_strides(ir.ExternKernel.realize_input(x), _channels_last(x.get_size()))


def _with_channels_together(x: Any) -> Any:
    """``x`` with the channels of a pixel side by side; there may be gaps between its pixels."""
    image = ir.ExternKernel.require_channels_last(ir.ExternKernel.realize_input(x))
    return image if image.get_stride()[1] == 1 else _dense(x)


def _channels_last(size: Sequence[Any]) -> list[Any]:
    _, channels, height, width = size
    return [height * width * channels, 1, width * channels, channels]


# They are our own operators, so that nothing of Inductor's is changed.
inductor_lowering.lowerings.update({SPLIT_TILES: _lower_split, JOIN_TILES: _lower_join})
