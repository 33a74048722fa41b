"""The type of a tensor: its shape and its dtype."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch_eqsat.errors import TypeMismatchError

ITEM_BYTES = {
    "float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "complex64": 8, "complex128": 16,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1, "bool": 1,
}  # fmt: skip
FLOATING = frozenset({"float64", "float32", "bfloat16", "float16"})
HALF = frozenset({"bfloat16", "float16"})


@dataclass(frozen=True, slots=True)
class TensorType:
    """Shape (static sizes) and dtype (torch's name without ``torch.``) of a tensor.

    >>> TensorType((2, 3), "float32").bytes
    24
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """The size in memory, without gaps; of an unknown dtype four bytes an element."""
        return self.numel * ITEM_BYTES.get(self.dtype, 4)

    @property
    def is_known(self) -> bool:
        """Whether the language has the dtype; others (float8, complex32) are those of opaque calls alone."""
        return self.dtype in ITEM_BYTES

    @property
    def is_floating(self) -> bool:
        """Whether elements are real floating-point numbers."""
        return self.dtype in FLOATING


def broadcast_shapes(shapes: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape that the given shapes broadcast to; TypeMismatchError when they do not.

    >>> broadcast_shapes([(4, 1), (3,)])
    (4, 3)
    """
    result: list[int] = []
    for shape in shapes:
        padded = [1] * (len(shape) - len(result)) + result
        offset = len(padded) - len(shape)
        for i, size in enumerate(shape):
            have = padded[offset + i]
            if have == size or size == 1:
                continue
            if have != 1:
                raise TypeMismatchError(f"shapes do not broadcast: {result} and {list(shape)}")
            padded[offset + i] = size
        result = padded
    return tuple(result)
