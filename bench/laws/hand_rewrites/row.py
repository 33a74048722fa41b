"""What a row of the table is: one computation written twice over the same weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

SEED = 0
Function = Callable[..., Any]
"""From a module that holds weights, and the inputs, to a tensor or a tuple of tensors."""


class Weights(nn.Module):
    """Parameters by name, drawn with a standard deviation of one over the root of their last size."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape) / shape[-1] ** 0.5))


class Applied(nn.Module):
    """A function of weights and inputs, as a module."""

    def __init__(self, function: Function, weights: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.weights = weights

    def forward(self, *inputs: Tensor) -> Any:
        """The function of the weights and ``inputs``."""
        return self.function(self.weights, *inputs)


@dataclass(frozen=True, slots=True)
class Row:
    """A computation and its rewritten form.

    ``original`` and ``hand`` compute the same values from ``weights()`` and ``inputs()``; what ``hand`` derives from
    weights alone is free when they are ``frozen``. ``pays`` says whether the rewrite is faster where it was timed, by
    the ratio that ``note`` gives (over the better of Inductor default and freezing); None where machines differ. A
    ``trained`` row is compiled with its gradients: those of parameters, and of inputs that ask for them.
    ``out_of_reach`` says why the search is not expected to get to the cost of ``hand``. ``exactness`` is what the laws
    of the rewrite ask for.
    """

    name: str
    pays: bool | None
    weights: Callable[[], nn.Module]
    original: Function
    hand: Function
    inputs: Callable[[], tuple[Tensor, ...]]
    note: str
    frozen: bool = True
    trained: bool = False
    out_of_reach: str = ""
    exactness: str = "reassociates"

    def build(self, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module, tuple[Tensor, ...]]:
        """The original and the rewritten module (of equal weights, in eval mode) and their inputs."""
        torch.manual_seed(SEED)
        weights = self.weights().to(dtype)
        inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in self.inputs())
        original = Applied(self.original, weights).eval()
        return original, Applied(self.hand, copy.deepcopy(weights)).eval(), inputs


def weights(**shapes: tuple[int, ...]) -> Callable[[], nn.Module]:
    """Makes :class:`Weights` of these shapes."""
    return lambda: Weights(**shapes)


def tensors(*shapes: tuple[int, ...]) -> Callable[[], tuple[Tensor, ...]]:
    """Makes normal inputs of these shapes."""
    return lambda: tuple(torch.randn(shape) for shape in shapes)


def indices(bound: int, *shape: int) -> Callable[[], tuple[Tensor, ...]]:
    """Makes one input of integers below ``bound``."""
    return lambda: (torch.randint(bound, shape),)


def differentiable(*shapes: tuple[int, ...]) -> Callable[[], tuple[Tensor, ...]]:
    """Makes normal inputs of these shapes, which ask for gradients."""
    return lambda: tuple(torch.randn(shape, requires_grad=True) for shape in shapes)
