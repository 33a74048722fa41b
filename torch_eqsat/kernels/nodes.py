"""What is asked of the calls of a frozen graph, and one call put in the place of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph
from torch.fx import Node as FxNode
from torch.fx.experimental.symbolic_shapes import statically_known_true

from torch_eqsat.graph.emitter import aten
from torch_eqsat.graph.whole import FILTER_BANK

VIEWS = (aten.reshape.default, aten.view.default, aten._unsafe_view.default)


@dataclass(frozen=True)
class Filters:
    """The rows of a matrix one after another, and how many there are."""

    numbers: Sequence[float] = (1.0,)
    count: int = 1

    @property
    def taps(self) -> int:
        """How many numbers a filter reads."""
        return len(self.numbers) // self.count

    def arguments(self) -> tuple[list[float], int]:
        """As a call has them."""
        return list(self.numbers), self.count


SAME = Filters()
"""The bank of one filter that changes nothing."""


@dataclass(frozen=True)
class Bank:
    """The arguments of a bank."""

    x: FxNode
    dim: int
    into: int
    step: int
    dilation: int
    filters: Filters


def bank_at(node: Any) -> Bank | None:
    """What ``node`` is as a bank of filters, if it is one."""
    if not isinstance(node, FxNode) or node.target is not FILTER_BANK or node.kwargs:
        return None
    arguments: Any = node.args
    x, dim, into, step, dilation, coefficients, filters = arguments
    return Bank(x, dim, into, step, dilation, Filters(tuple(coefficients), filters))


def shape_of(node: FxNode) -> list[Any]:
    """The sizes of a value."""
    return list(node.meta["val"].shape)


def alike(sizes: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether sizes are known to be equal; symbolic ones are not guarded."""
    return len(sizes) == len(others) and all(statically_known_true(a == b) for a, b in zip(sizes, others, strict=True))


def is_image(node: Any) -> bool:
    """Whether a value is float32 images on a CPU, of sizes that are known but perhaps for how many there are."""
    value = node.meta.get("val") if isinstance(node, FxNode) else None
    return (
        isinstance(value, torch.Tensor)
        and value.dtype is torch.float32
        and value.device.type == "cpu"
        and value.dim() == 4
        and all(type(size) is int for size in value.shape[1:])
    )


def only_user(node: FxNode) -> FxNode | None:
    """The call that alone reads a value, if it is so."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].op == "call_function" else None


def put(graph: Graph, last: FxNode, target: Any, args: tuple[Any, ...]) -> None:
    """Make one call of all that leads to ``last``; what is not used any more goes."""
    with graph.inserting_before(last):
        node = graph.call_function(target, args)
    node.meta = dict(last.meta)
    last.replace_all_uses_with(node)
    waiting, erased = [last], set[FxNode]()
    while waiting:
        unused = waiting.pop()
        if unused not in erased and unused.op == "call_function" and not unused.users:
            waiting += unused.all_input_nodes
            graph.erase_node(unused)
            erased.add(unused)
