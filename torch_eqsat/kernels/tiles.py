"""The two kernels as generated code calls them; each is compiled once on a machine for its matrices.

Where the C++ does not compile, one line is logged, and the calls that a kernel stands for are run.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import math
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch._inductor.codecache import CppPythonBindingsCodeCache
from torch._inductor.cpu_vec_isa import pick_vec_isa

from torch_eqsat.errors import first_line
from torch_eqsat.kernels import calls
from torch_eqsat.kernels.source import (
    JOIN_ARGUMENTS,
    MOST_OPERANDS,
    SPLIT_ARGUMENTS,
    Matrix,
    join_source,
    split_source,
)

logger = logging.getLogger(__name__)
Kernel = Callable[..., Any]

# Numbers to write for each thread: starting one takes some microseconds, and writing these about four.
NUMBERS_PER_THREAD = 1 << 14


def split_tiles(x: Tensor, matrices: str, top: int, left: int, step_h: int, step_w: int, *, out: Tensor) -> None:
    """`calls.SPLIT_TILES` of ``x`` [n, c, h, w] into ``out``; both lie channels-last in memory, ``x`` perhaps with gaps
    between its pixels. ``matrices`` is spelled as `spelled` does."""
    window = (top, left, step_h, step_w)
    kernel, place, threads = _split(matrices, window, x.shape, x.stride(), out.shape, out.stride())
    kernel(x, out, *place, min(threads, torch.get_num_threads()))


def join_tiles(x: Tensor, *operands_matrices_steps: Any, out: Tensor) -> None:
    """`calls.JOIN_TILES` of ``x`` into ``out``; both, and images among the operands, lie channels-last in memory."""
    *operands, matrices, steps = operands_matrices_steps
    forms = tuple([(tensor.shape, tensor.stride()) for tensor in (x, out, *operands)])
    kernel, place, threads = _join(matrices, steps, forms)
    unused = (out,) * (MOST_OPERANDS - len(operands))
    kernel(x, out, *operands, *unused, *place, min(threads, torch.get_num_threads()))


Form = tuple[Sequence[int], Sequence[int]]  # sizes and strides


# What a call looks up: to work it out anew took a third longer, where the convolution before it had emptied the caches.
@lru_cache(maxsize=1024)
def _split(
    matrices: str,
    window: tuple[int, int, int, int],
    shape: Sequence[int],
    strides: Sequence[int],
    out_shape: Sequence[int],
    out_strides: Sequence[int],
) -> tuple[Kernel, tuple[int, ...], int]:
    """The kernel of a split, its arguments, and how many threads it may use."""
    images, channels, height, width = shape
    n, c, h, w = strides
    if c != 1 or not _is_channels_last((out_shape, out_strides)):
        raise ValueError(f"strides {strides} into {out_strides}: channels have to lie side by side")
    place = (images, height, width, channels, n, h, w, *window, *out_shape[2:])
    return _split_kernel(matrices), place, _most_threads(out_shape)


@lru_cache(maxsize=1024)
def _join(matrices: str, steps: int, forms: Sequence[Form]) -> tuple[Kernel, tuple[int, ...], int]:
    """The kernel of a join, its arguments, how many threads it may use. ``forms`` are of ``x``, ``out``, operands."""
    for form in forms:
        if len(form[0]) == 4 and not _is_channels_last(form):
            raise ValueError(f"strides {form[1]} of {tuple(form[0])}: images have to lie channels-last")
    (x_shape, _), (out_shape, _), *_ = forms
    images, channels, height, width = out_shape
    place = (images, height, width, channels, *x_shape[2:], steps)
    return _join_kernel(matrices), place, _most_threads(out_shape)


def _is_channels_last(form: Form) -> bool:
    return bool(torch.empty_strided(*form, device="meta").is_contiguous(memory_format=torch.channels_last))


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


def _most_threads(shape: Sequence[int]) -> int:
    return max(1, math.prod(shape) // NUMBERS_PER_THREAD)


def _read(matrices: str) -> list[Matrix]:
    return [tuple(tuple(map(float, row.split(","))) for row in m.split(";")) for m in matrices.split("|")]


@lru_cache(maxsize=256)
def _load_split(matrices: str) -> Kernel:
    return _compiled(SPLIT_ARGUMENTS, split_source(*_read(matrices)))


@lru_cache(maxsize=256)
def _load_join(matrices: str) -> Kernel:
    return _compiled(JOIN_ARGUMENTS, join_source(*_read(matrices)))


@lru_cache(maxsize=256)
def _split_kernel(matrices: str) -> Kernel:
    try:
        return _load_split(matrices)
    except Exception as error:  # whatever a compiler may say
        _tell(error)
        return calls.split_by_calls(*_read(matrices))


@lru_cache(maxsize=256)
def _join_kernel(matrices: str) -> Kernel:
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
