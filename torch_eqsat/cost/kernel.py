"""Names for the heavy kernels whose time is measured: matrix products, convolutions and attention.

A :class:`Kernel` says everything that its time depends on and nothing else, so that equal kernels in different
graphs share one measurement. It is free of torch: dtypes and devices are strings.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch_eqsat.errors import TypeMismatchError

Shape = tuple[int, ...]
Kind = Literal["matmul", "conv", "conv_transpose", "sdpa"]

BYTES_OF = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one element, for each dtype that a kernel may have."""

# The dtypes for which Inductor packs a frozen weight. A float64 matrix stays a plain mm; a float64 convolution it
# cannot compile at all when frozen (torch 2.14.1: "itensor_view_from_dense expects float/…").
_PACKED = {"float32", "bfloat16", "float16"}


THIN_ROWS = 64
"""Of a product, rows for which reading a weight from memory shows. On an AMD EPYC (family 26), 768 by 3072: 16 rows
take 0.13 ms from the cache and 0.25 ms from memory."""


@dataclass(frozen=True)
class Measurement:
    """The time of one kernel: ``ms`` milliseconds, a low quantile of the ``repeats`` samples that were taken.

    ``spread`` is (median − ms) / ms, a pure number: 0 on a quiet machine; above about 0.3 the number is not to be
    trusted. ``pace_ms`` is what a yardstick took beside it: how fast the machine computed just then; 0 if unknown.
    """

    ms: float
    spread: float
    repeats: int
    pace_ms: float = 0.0


@dataclass(frozen=True)
class Kernel:
    """One heavy kernel; make it with :meth:`matmul`, :meth:`conv`, :meth:`conv_transpose` or :meth:`sdpa`, which check
    and normalise.

    ``shapes`` holds the operands' shapes. ``weight`` says that the second operand is a frozen constant *and* that
    Inductor packs it; where it would not (batched products, 1-d convolutions, float64, a GPU) the constructors put
    False, so that the frozen and the plain form of what is the same kernel share one measurement. ``cold`` says that
    the second operand comes from memory and not from a cache.

    >>> Kernel.matmul((32, 64), (64, 48), bias=True).key
    'matmul float32 cpu 32x64 64x48 bias'
    >>> Kernel.matmul((32, 64), (64, 48)).flops
    196608
    """

    kind: Kind
    shapes: tuple[Shape, ...]
    dtype: str = "float32"
    device: str = "cpu"
    weight: bool = False
    bias: bool = False
    stride: Shape = ()
    padding: Shape = ()
    dilation: Shape = ()
    groups: int = 1
    causal: bool = False
    turned: bool = False
    cold: bool = False

    @classmethod
    def matmul(
        cls,
        a: Sequence[int],
        b: Sequence[int],
        *,
        dtype: str = "float32",
        device: str = "cpu",
        weight: bool = False,
        bias: bool = False,
        turned: bool = False,
    ) -> "Kernel":
        """The product of a matrix [m, k] or a batch [b, m, k] with [k, n] or [b, k, n]; ``bias`` adds a row of n.

        ``turned`` says that the second operand is a transposed view, stored as [n, k], like the weight of every linear
        layer: with 8 rows of 768 such a product took 0.26 ms and the other 0.14 ms. A packed weight forgets it.
        """
        shapes = _shapes(a, b)
        left, right = shapes
        if len(left) not in (2, 3) or left[:-2] + left[-1:] != right[:-1]:
            raise TypeMismatchError(f"matmul of {left} and {right}")
        if bias and len(left) == 3:
            raise TypeMismatchError("a batched matmul has no bias")
        packed = weight and device == "cpu" and len(left) == 2 and dtype in _PACKED
        return cls("matmul", shapes, _dtype(dtype), device, packed, bias, turned=turned and not packed)

    @classmethod
    def conv(
        cls,
        x: Sequence[int],
        w: Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        dtype: str = "float32",
        device: str = "cpu",
        weight: bool = False,
        bias: bool = False,
    ) -> "Kernel":
        """The convolution of [N, C, *spatial] with [O, C/groups, *window]; one number stands for all spatial axes."""
        shapes = _shapes(x, w)
        image, window = shapes
        axes = len(image) - 2
        if axes not in (1, 2, 3) or len(window) != len(image) or groups < 1:
            raise TypeMismatchError(f"convolution of {image} with {window}")
        if image[1] != window[1] * groups or window[0] % groups:
            raise TypeMismatchError(f"convolution of {image} with {window} in {groups} groups")
        steps = _per_axis(stride, axes), _per_axis(padding, axes), _per_axis(dilation, axes)
        packed = weight and device == "cpu" and axes > 1 and dtype in _PACKED
        kernel = cls("conv", shapes, _dtype(dtype), device, packed, bias, *steps, groups=groups)
        if min(kernel.out_shape) < 1:
            raise TypeMismatchError(f"convolution of {image} with {window}: an empty output")
        return kernel

    @classmethod
    def conv_transpose(
        cls,
        x: Sequence[int],
        w: Sequence[int],
        *,
        stride: Sequence[int],
        padding: Sequence[int],
        groups: int = 1,
        dtype: str = "float32",
        device: str = "cpu",
        weight: bool = False,
    ) -> "Kernel":
        """The transposed convolution of [N, C, *spatial] with [C, O/groups, *window], without dilation."""
        shapes = _shapes(x, w)
        image, window = shapes
        axes = len(image) - 2
        if axes not in (1, 2, 3) or len(window) != len(image) or image[1] != window[0] or window[0] % groups:
            raise TypeMismatchError(f"transposed convolution of {image} with {window} in {groups} groups")
        steps = _per_axis(stride, axes), _per_axis(padding, axes), (1,) * axes
        depthwise = groups == image[1] > 1  # not packed by Inductor
        packed = weight and device == "cpu" and axes > 1 and dtype in _PACKED and not depthwise
        return cls("conv_transpose", shapes, _dtype(dtype), device, packed, False, *steps, groups=groups)

    @classmethod
    def sdpa(
        cls,
        q: Sequence[int],
        k: Sequence[int],
        v: Sequence[int],
        *,
        causal: bool = False,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> "Kernel":
        """Softmax attention of queries [B, H, L, D], keys [B, H, S, D] and values [B, H, S, E]."""
        shapes = _shapes(q, k, v)
        query, key, value = shapes
        if any(len(shape) != 4 for shape in shapes) or not query[:2] == key[:2] == value[:2]:
            raise TypeMismatchError(f"attention of {query}, {key}, {value}")
        if query[3] != key[3] or key[2] != value[2]:
            raise TypeMismatchError(f"attention of {query}, {key}, {value}")
        return cls("sdpa", shapes, _dtype(dtype), device, causal=causal)

    @property
    def out_shape(self) -> Shape:
        """The shape of the result."""
        first, second = self.shapes[:2]
        if self.kind == "matmul":
            return (*first[:-1], second[-1])
        if self.kind == "sdpa":
            return (*first[:-1], self.shapes[2][-1])
        sizes = zip(first[2:], second[2:], self.stride, self.padding, self.dilation, strict=True)
        if self.kind == "conv_transpose":
            return (first[0], second[1] * self.groups, *((x - 1) * s - 2 * p + w for x, w, s, p, _ in sizes))
        return (first[0], second[0], *((x + 2 * p - d * (w - 1) - 1) // s + 1 for x, w, s, p, d in sizes))

    @property
    def flops(self) -> int:
        """Floating-point operations, a multiply-add counted as two; causal attention skips unseen pairs."""
        out = math.prod(self.out_shape)
        extra = out if self.bias else 0
        if self.kind == "matmul":
            return 2 * out * self.shapes[0][-1] + extra
        if self.kind == "conv":
            return 2 * out * math.prod(self.shapes[1][1:]) + extra
        if self.kind == "conv_transpose":
            return 2 * math.prod(self.shapes[0]) * math.prod(self.shapes[1][1:]) + extra
        (batch, heads, rows, depth), (_, _, columns, width) = self.shapes[0], self.shapes[2]
        pairs = batch * heads * _seen_pairs(rows, columns, self.causal)
        return 2 * pairs * (depth + width)

    @property
    def bytes(self) -> int:
        """Bytes of the operands and the result, each moved once."""
        numbers = sum(map(math.prod, self.shapes)) + math.prod(self.out_shape)
        if self.bias:
            numbers += self.out_shape[1 if self.kind == "conv" else -1]
        return numbers * BYTES_OF[self.dtype]

    @property
    def thin(self) -> bool:
        """Whether reading the second operand takes a large part of the time: each of its numbers is used by few rows
        or pixels."""
        axis = 1 if self.kind in ("conv", "conv_transpose") else -1
        return self.kind != "sdpa" and math.prod(self.out_shape) <= THIN_ROWS * self.out_shape[axis]

    @property
    def key(self) -> str:
        """A readable name, equal exactly when the kernels are equal; the primary key of the table on disk."""
        words = [self.kind, self.dtype, self.device, *map(_times, self.shapes)]
        if self.kind in ("conv", "conv_transpose"):
            words += [f"{mark}{_times(value)}" for mark, value in zip("spd", self._steps, strict=True)]
            words.append(f"g{self.groups}")
        flags = {"weight": self.weight, "bias": self.bias, "causal": self.causal}
        flags |= {"turned": self.turned, "cold": self.cold}
        return " ".join(words + [name for name, on in flags.items() if on])

    @property
    def _steps(self) -> tuple[Shape, Shape, Shape]:
        return self.stride, self.padding, self.dilation


def _seen_pairs(rows: int, columns: int, causal: bool) -> int:
    """Pairs (i, j) of a query and a key that sees it: all of them, or those with j ≤ i."""
    if not causal:
        return rows * columns
    square = min(rows, columns)
    return square * (square + 1) // 2 + (rows - square) * columns


def _shapes(*shapes: Sequence[int]) -> tuple[Shape, ...]:
    plain = tuple(tuple(map(int, shape)) for shape in shapes)
    if any(size < 1 for shape in plain for size in shape):
        raise TypeMismatchError(f"an empty operand among {plain}")
    return plain


def _dtype(name: str) -> str:
    if name not in BYTES_OF:
        raise TypeMismatchError(f"no heavy kernel is measured in dtype {name}")
    return name


def _per_axis(value: int | Sequence[int], axes: int) -> Shape:
    """``value`` for each of the axes; aten allows one number for all of them, in a list too."""
    values = (value,) if isinstance(value, int) else tuple(map(int, value))
    if len(values) == 1:
        values *= axes
    if len(values) != axes:
        raise TypeMismatchError(f"{values} given for {axes} spatial axes")
    return values


def _times(shape: Shape) -> str:
    return "x".join(map(str, shape))
