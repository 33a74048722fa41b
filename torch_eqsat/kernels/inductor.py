"""How Inductor compiles the two kernels: as calls of those of `tiles.py` from its generated code."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

from sympy import sympify
from torch._inductor import config, ir
from torch._inductor import lowering as inductor_lowering
from torch._inductor.utils import parallel_num_threads
from torch._inductor.virtualized import V
from torch.fx import Graph

from torch_eqsat.errors import first_line
from torch_eqsat.kernels import tiles
from torch_eqsat.kernels.calls import JOIN_TILES, SPLIT_TILES, matrix, step_names
from torch_eqsat.kernels.joins import make_joins
from torch_eqsat.kernels.source import MOST_OPERANDS
from torch_eqsat.kernels.splits import make_splits

logger = logging.getLogger(__name__)


class _Tiles(ir.ExternKernelOut):
    """A call of a kernel of ours that writes into a buffer of Inductor's. What the kernel is told of sizes stands in
    the generated code: to look it up at each call took 15 to 27 µs where a convolution had emptied the caches."""

    def codegen(self, wrapper: Any) -> None:
        kind, matrices, *constants = self.constant_args
        name = f"{kind}_{hashlib.blake2b(matrices.encode(), digest_size=8).hexdigest()}"
        wrapper.add_import_once(f"from {tiles.__name__} import split_kernel, join_kernel")
        wrapper.add_import_once(f"{name} = {kind}_kernel({matrices!r})")
        x, *operands = self.inputs
        out = self.codegen_reference()
        if kind == "split":
            _check_dense([self])
            numbers = tiles.split_numbers(x.get_size(), x.get_stride(), constants, self.get_size()[2:])
            others = []
        else:
            _check_dense([x, self, *operands])
            numbers = tiles.join_numbers(x.get_size()[2:], self.get_size(), *constants)
            others = [*(o.codegen_reference() for o in operands), *[out] * (MOST_OPERANDS - len(operands))]
        threads = "torch.get_num_threads()" if config.cpp.dynamic_threads else str(parallel_num_threads())
        arguments = [x.codegen_reference(), out, *others, *map(wrapper.codegen_sizevar, map(sympify, numbers)), threads]
        self.codegen_comment(wrapper)
        wrapper.writeline(f"{name}({', '.join(arguments)})")


def _check_dense(images: Sequence[Any]) -> None:
    """Raise ValueError for an image that does not lie channels-last without gaps, as the kernel reads it."""
    known = V.graph.sizevars.statically_known_equals
    for image in images:
        size, stride = image.get_size(), image.get_stride()
        wanted = _channels_last(size) if len(size) == 4 else stride
        if not all(known(n, 1) or known(a, b) for n, a, b in zip(size, stride, wanted, strict=True)):
            raise ValueError(f"strides {stride} of {size}: images have to lie channels-last")


def use_kernels(graph: Graph) -> None:
    """Put our kernels into ``graph`` where they fit, if generated code can call them: not from C++ or FX wrappers. What
    is not understood stays as it is, with one line in the log."""
    if config.cpp_wrapper or config.fx_wrapper:
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
    return _made("split", size, _with_channels_together(x), (), matrices, *corner, *step)


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
    return _made("join", [images, channels, *size], _dense(x), others, matrices, steps)


def _made(kind: str, size: Sequence[Any], x: Any, others: Sequence[Any], *constants: Any) -> Any:
    layout = ir.FixedLayout(x.get_device(), x.get_dtype(), size, _channels_last(size))
    return ir.TensorBox.create(_Tiles(layout, [x, *others], (kind, *constants)))


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
