"""Where calls of ATen operators go: they are run, or added to a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.ir.types import TensorType

aten = torch.ops.aten
prims = torch.ops.prims
Value = Any
"""A tensor, an FX node or (for the operator ``scalar``) a Python number."""


class Emitter(Protocol):
    """Calls an ATen operator: runs it, or adds it to a graph."""

    keeps_whole: bool
    """Whether operators of our own are calls, to be taken apart later (see `graph/whole.py`)."""

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Value:
        """The result of the ATen overload ``target``."""
        ...

    def constant(self, make: Callable[[], torch.Tensor]) -> Value:
        """The tensor that ``make`` returns, as a constant."""
        ...

    def number(self, value: float, shape: Sequence[int], dtype: torch.dtype) -> Value:
        """A tensor of ``shape`` each of whose elements is ``value``."""
        ...

    def device(self) -> torch.device:
        """Where constants are made."""
        ...

    def store(self, value: Value) -> None:
        """Have ``value`` computed once and stored, not anew by each of its readers."""
        ...


class Evaluator:
    """An Emitter that runs operators on real tensors."""

    keeps_whole = False

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Value:
        if target is torch.ops.prims.convert_element_type.default:  # prims have no gradient
            return args[0].to(args[1])
        if target is torch.ops.prims.rev.default:
            return args[0].flip(args[1])
        return target(*args, **kwargs)

    def constant(self, make: Callable[[], torch.Tensor]) -> Value:
        return make()

    def number(self, value: float, shape: Sequence[int], dtype: torch.dtype) -> Value:
        return torch.full(tuple(shape), value, dtype=dtype, device=self.device())

    def device(self) -> torch.device:
        return torch.device("cpu")

    def store(self, value: Value) -> None:
        """Values are tensors, and stored."""


def torch_dtype(name: str) -> torch.dtype:
    """The dtype that the language calls ``name``."""
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def value_of(x: Value) -> torch.Tensor:
    """The tensor, or the fake one that stands for an FX node."""
    value = x.meta["val"] if isinstance(x, torch.fx.Node) else x
    assert isinstance(value, torch.Tensor)
    return value


def shape_of(x: Value) -> list[int]:
    """The shape of a tensor or an FX node."""
    return list(value_of(x).shape)


Lowering = Callable[[Emitter, dict[str, Any], Sequence[Value]], Value]
"""An operator of the language by its attributes and operands, as ATen calls."""
Translation = Callable[[Builder, Sequence[Any], dict[str, Any], TensorType], Handle | None]
"""What an ATen call means by its arguments and the type of its result; None for a call outside of what the language
says exactly (another dtype, a ceil mode): it is opaque then, and nothing else is lost."""


def filled(args: Sequence[Any], defaults: Sequence[Any]) -> list[Any]:
    """``args`` and, where they end, ``defaults``."""
    return [*args, *defaults[len(args) :]]
