"""Banks, views and slices after a product, and the sums and the relu that follow, found in a frozen graph and made one
call each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph
from torch.fx import Node as FxNode

from torch_eqsat.graph.emitter import aten
from torch_eqsat.graph.whole import FILTER_BANK
from torch_eqsat.kernels.calls import JOIN_TILES, packed
from torch_eqsat.kernels.nodes import (
    SAME,
    VIEWS,
    Bank,
    Filters,
    alike,
    bank_at,
    is_image,
    only_user,
    put,
    shape_of,
)
from torch_eqsat.kernels.source import LEAST_CHANNELS, MOST_OPERANDS, MOST_STEPS

_STEPS = {aten.add.Tensor: "add", aten.sub.Tensor: "sub", aten.mul.Tensor: "mul"}


@dataclass
class _Chain:
    """What follows the products ``x``, up to the call ``last``."""

    x: FxNode
    last: FxNode
    rows: Filters = SAME
    columns: Filters = SAME


def make_joins(graph: Graph) -> None:
    """Put `JOIN_TILES` in the place of all banks of rows, of columns and of both that it does."""
    for node in list(graph.find_nodes(op="call_function", target=FILTER_BANK)):
        if node.users and (chain := _chain_at(node)) is not None and shape_of(chain.last)[1] >= LEAST_CHANNELS:
            _make_join(graph, chain)


def _make_join(graph: Graph, chain: _Chain) -> None:
    size, last = shape_of(chain.last)[2:], chain.last
    steps: list[str] = []
    operands: list[FxNode] = []
    while (user := only_user(last)) is not None and (step := _step(user, last)) is not None:
        name, own = step
        if len(operands) + len(own) > MOST_OPERANDS or len(steps) == MOST_STEPS:
            break
        steps.append(name)
        operands += own
        last = user
    matrices = (*chain.rows.arguments(), *chain.columns.arguments())
    put(graph, last, JOIN_TILES, (chain.x, *matrices, size, packed(steps), operands))


def _chain_at(node: FxNode) -> _Chain | None:
    """The chain whose first bank is ``node``."""
    bank = bank_at(node)
    if bank is None or bank.dim != 1 or bank.step != 1 or bank.into not in (3, 4):
        return None
    view = bank.x
    x: Any = view.args[0] if view.target in VIEWS and view.args else None
    if not is_image(x):
        return None
    n, c, down, across = shape_of(x)
    if c != bank.dilation * bank.filters.taps:
        return None
    if bank.into == 4:
        return _with_columns(_Chain(x, node), bank) if alike(shape_of(view), [n, c, down, across, 1]) else None
    return _with_rows(_Chain(x, node), bank) if alike(shape_of(view), [n, c, down, 1, across]) else None


def _with_columns(chain: _Chain, bank: Bank) -> _Chain | None:
    """``chain``, which ends in a bank along columns, with the view and the slice that make an image of it; and with a
    bank along rows if that follows."""
    n, c, down, across, filters = shape_of(chain.last)
    wide, end = across * filters, only_user(chain.last)
    if end is None or end.target not in VIEWS:
        return None
    if not alike(shape_of(end), [n, c, down, wide]) and not alike(shape_of(end), [n, c, down, 1, wide]):
        return None
    end = _cut(end, axis=-1)
    following = end
    if is_image(end) and (view := only_user(end)) is not None and view.target in VIEWS:
        following = view  # an axis of one comes before the columns
    rows = bank_at(user := only_user(following))
    if user is not None and rows is not None and (rows.dim, rows.into, rows.step) == (1, 3, 1):
        expected = [n, c, down, 1, shape_of(end)[-1]]
        fits = c == rows.dilation * rows.filters.taps and alike(shape_of(following), expected)
        return _with_rows(_Chain(chain.x, user, columns=bank.filters), rows) if fits else None
    return _Chain(chain.x, end, columns=bank.filters) if is_image(end) else None


def _with_rows(chain: _Chain, bank: Bank) -> _Chain | None:
    """``chain``, which ends in a bank along rows, with the view and the slice that make an image of it."""
    n, c, down, filters, width = shape_of(chain.last)
    end = only_user(chain.last)
    if end is None or end.target not in VIEWS or not alike(shape_of(end), [n, c, down * filters, width]):
        return None
    return _Chain(chain.x, _cut(end, axis=-2), bank.filters, chain.columns)


def _cut(node: FxNode, axis: int) -> FxNode:
    """The slice of ``node`` from the start of ``axis`` that is all that is used of it, or else ``node``."""
    user = only_user(node)
    if user is None or user.target is not aten.slice.Tensor or len(user.args) > 4 or user.kwargs:
        return node
    arguments: Any = (*user.args, 0, 0)
    rank = len(shape_of(node))
    return user if arguments[2] in (0, None) and arguments[1] % rank == rank + axis else node


def _step(user: FxNode, value: FxNode) -> tuple[str, list[FxNode]] | None:
    """What ``user`` does with ``value``, an image: the name of a step, and its operand if it has one."""
    if user.kwargs or not is_image(user) or not alike(shape_of(user), shape_of(value)):
        return None
    if user.target is aten.relu.default:
        return "relu", []
    name = _STEPS.get(user.target)
    if name is None or len(user.args) != 2:
        return None
    first, second = user.args
    operand = second if first is value else first
    if not isinstance(operand, FxNode) or operand is value or (name == "sub" and first is not value):
        return None
    if _is_of_channels(operand, value):
        return name, [operand]
    is_residual = name == "add" and is_image(operand) and alike(shape_of(operand), shape_of(value))
    return ("add_image", [operand]) if is_residual else None


def _is_of_channels(operand: FxNode, value: FxNode) -> bool:
    """Whether ``operand`` is one number of each channel, side by side in memory."""
    known, channels = operand.meta.get("val"), shape_of(value)[1]
    if not isinstance(known, torch.Tensor) or known.dtype is not torch.float32 or known.device.type != "cpu":
        return False
    return alike([*[1] * (4 - known.dim()), *known.shape], [1, channels, 1, 1]) and known.is_contiguous()
