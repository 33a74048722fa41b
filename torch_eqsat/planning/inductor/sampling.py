"""An element of each weight, read where it lies: values written through ``weight.data`` move no counter and no
address."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass


def has_memory(weight: Tensor) -> bool:
    """Whether the values of ``weight`` lie at one address."""
    return weight.layout is torch.strided and not is_traceable_wrapper_subclass(weight)


def can_be_read(weight: Tensor) -> bool:
    """Whether there are values of ``weight``, and they lie at an address of this process: memory that was given back
    has none."""
    return has_memory(weight) and weight.device.type == "cpu" and weight.numel() > 0 and weight.data_ptr() != 0


class Sample:
    """The addresses of the middle element of each weight: the first row of an embedding is often never written.

    Their bytes are gathered at once, over memory as one array: a tensor operation for each weight would cost a call of
    torch. What is read has to be the weights' memory still: compare addresses first.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        """All of ``weights`` can be read (see :func:`can_be_read`)."""
        addresses = numpy.concatenate([numpy.zeros(0, numpy.int64), *map(_addresses, weights)])
        start = int(addresses.min()) if addresses.size else 0
        self._offsets = addresses - start
        memory = _Memory(start, int(self._offsets.max()) + 1 if addresses.size else 0)
        self._memory: NDArray[numpy.uint8] = numpy.asarray(memory)

    def read(self) -> NDArray[numpy.uint8]:
        """The bytes of all of these elements."""
        return self._memory.take(self._offsets)


class _Memory:
    """``size`` bytes of this process from the address ``start`` on, for numpy to read where they are mapped."""

    def __init__(self, start: int, size: int) -> None:
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "data": (start, True),
            "shape": (size,),
            "typestr": "|u1",
        }


def _addresses(weight: Tensor) -> NDArray[numpy.int64]:
    """Of each byte of the middle element."""
    middle = sum((n // 2) * stride for n, stride in zip(weight.shape, weight.stride(), strict=True))
    start, size = weight.data_ptr(), weight.element_size()
    return numpy.arange(start + size * middle, start + size * (middle + 1), dtype=numpy.int64)
