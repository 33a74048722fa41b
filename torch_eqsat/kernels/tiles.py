"""The two kernels as generated code calls them; each is compiled once on a machine for its matrices.

Where the C++ does not compile, one line is logged, and the calls that a kernel stands for are run.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

from torch._inductor.codecache import CppPythonBindingsCodeCache
from torch._inductor.cpu_vec_isa import pick_vec_isa

from torch_eqsat.errors import first_line
from torch_eqsat.kernels import calls
from torch_eqsat.kernels.source import (
    JOIN_ARGUMENTS,
    SPLIT_ARGUMENTS,
    Matrix,
    join_source,
    split_source,
)

logger = logging.getLogger(__name__)
Kernel = Callable[..., Any]


def split_numbers(
    size: Sequence[Any], stride: Sequence[Any], window: Sequence[int], tiles: Sequence[Any]
) -> tuple[Any, ...]:
    """What the kernel of a split is given after its tensors, but for the threads, where the image has these sizes
    [n, c, h, w] and strides, the ``window`` is (top, left, step_h, step_w), and so many ``tiles`` stand below and
    beside one another. The sizes may be symbols."""
    images, channels, height, width = size
    n, c, h, w = stride
    if c != 1:
        raise ValueError(f"strides {tuple(stride)}: the channels of a pixel have to lie side by side")
    return (images, height, width, channels, n, h, w, *window, *tiles)


def join_numbers(tiles: Sequence[Any], size: Sequence[Any], steps: int) -> tuple[Any, ...]:
    """What the kernel of a join is given after its tensors, but for the threads, where so many ``tiles`` stand below
    and beside one another, and the image has this ``size`` [n, c, h, w]."""
    images, channels, height, width = size
    return (images, height, width, channels, *tiles, steps)


def spelled(rows: Matrix, columns: Matrix) -> str:
    """Both matrices as text: what a kernel is known by in generated code."""
    return "|".join(";".join(",".join(map(repr, row)) for row in matrix) for matrix in (rows, columns))


def prepare(matrices: str, joins: bool) -> None:
    """Begin to compile a kernel beside what this process does, once: a model has a call for each convolution, and a
    compiler for each took 6 GB. If it fails, the first call tries again."""
    load = _load_join if joins else _load_split
    if (matrices, joins) in _begun:
        return
    _begun.add((matrices, joins))
    pick_vec_isa()  # which runs compilers of its own, and remembers what it found
    work = partial(contextvars.copy_context().run, load, matrices)  # with the settings of this thread
    threading.Thread(target=lambda: _without_errors(work), name="torch_eqsat kernel", daemon=True).start()


_begun: set[tuple[str, bool]] = set()


def _without_errors(work: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):
        work()


def _read(matrices: str) -> list[Matrix]:
    return [tuple(tuple(map(float, row.split(","))) for row in m.split(";")) for m in matrices.split("|")]


@lru_cache(maxsize=256)
def _load_split(matrices: str) -> Kernel:
    return _compiled(SPLIT_ARGUMENTS, split_source(*_read(matrices)))


@lru_cache(maxsize=256)
def _load_join(matrices: str) -> Kernel:
    return _compiled(JOIN_ARGUMENTS, join_source(*_read(matrices)))


@lru_cache(maxsize=256)
def split_kernel(matrices: str) -> Kernel:
    """``kernel(x, out, *split_numbers, threads)``: `calls.SPLIT_TILES` of ``x`` into ``out``, which lies channels-last.
    ``matrices`` is spelled as `spelled` does."""
    try:
        return _load_split(matrices)
    except Exception as error:  # whatever a compiler may say
        _tell(error)
        return calls.split_by_calls(*_read(matrices))


@lru_cache(maxsize=256)
def join_kernel(matrices: str) -> Kernel:
    """``kernel(x, out, *operands, *join_numbers, threads)``: `calls.JOIN_TILES` of ``x`` into ``out``, with
    `source.MOST_OPERANDS` operands, of which the steps read the first ones; all images lie channels-last."""
    try:
        return _load_join(matrices)
    except Exception as error:
        _tell(error)
        return calls.join_by_calls(*_read(matrices))


def _tell(error: Exception) -> None:
    logger.warning("a kernel for tiles did not compile, and its calls run in its place: %s", first_line(error))


def _compiled(arguments: Sequence[str], source: str) -> Kernel:
    flags = ("-ffp-contract=off",)
    kernel: Kernel = CppPythonBindingsCodeCache.load_pybinding(arguments, source, needs_vec_isa=True, extra_flags=flags)
    return kernel
