"""Pads and banks before a product, found in a frozen graph and made one call each."""

from __future__ import annotations

from typing import Any

from torch.fx import Graph
from torch.fx import Node as FxNode

from torch_eqsat.graph.emitter import aten
from torch_eqsat.graph.whole import FILTER_BANK
from torch_eqsat.kernels.calls import SPLIT_TILES
from torch_eqsat.kernels.nodes import SAME, bank_at, is_image, put, shape_of
from torch_eqsat.kernels.source import LEAST_CHANNELS


def make_splits(graph: Graph) -> None:
    """Put `SPLIT_TILES` in the place of all banks of rows, of columns and of both that it does."""
    for node in list(graph.find_nodes(op="call_function", target=FILTER_BANK)):
        if _is_of_image(node) and not any(map(_goes_on, node.users)):
            _make_split(graph, node)


def _is_of_image(node: FxNode) -> bool:
    """Whether a bank sums along an image's rows or columns, and leaves its filters beside one another as channels."""
    bank = bank_at(node)
    return bank is not None and is_image(bank.x) and bank.dim in (2, 3) and bank.into == bank.dilation == 1


def _goes_on(user: FxNode) -> bool:
    """Whether a user of rows' sums sums their columns, perhaps once they are padded."""
    if bank_at(user) is not None:
        return _is_of_image(user) and _rows_before(user) is not None
    return _padding(user) is not None and any(bank_at(other) and _goes_on(other) for other in user.users)


def _rows_before(node: FxNode) -> FxNode | None:
    """The bank along rows that a bank along columns, perhaps behind a pad, is applied to."""
    bank = bank_at(node)
    if bank is None or bank.dim != 3:
        return None
    before, _, _ = _unpadded(bank.x, rows=False)
    rows = bank_at(before)
    return before if rows is not None and rows.dim == 2 and _is_of_image(before) else None


def _padding(node: Any) -> list[int] | None:
    """How many zeros a pad of images adds: to the left, to the right, above and below. None if it is no such pad."""
    if not isinstance(node, FxNode) or node.target is not aten.constant_pad_nd.default or node.kwargs:
        return None
    if not is_image(node.args[0]):
        return None
    arguments: Any = (*node.args, 0.0)
    pads = [*arguments[1], *[0] * (8 - len(arguments[1]))]
    known = all(type(n) is int and n >= 0 for n in pads) and not any(pads[4:])
    return pads[:4] if known and arguments[2] == 0 else None


def _unpadded(node: Any, rows: bool = True) -> tuple[Any, int, int]:
    """What a value is a padded form of, along its columns and, if ``rows``, along its rows; and how many zeros stand
    above and to the left."""
    pads = _padding(node)
    if pads is None or (not rows and any(pads[2:])):
        return node, 0, 0
    return node.args[0], pads[2], pads[0]


def _make_split(graph: Graph, last: FxNode) -> None:
    bank = bank_at(last)
    assert bank is not None
    rows, columns, step = SAME, SAME, [1, 1]
    if (before := bank_at(_rows_before(last))) is not None:
        rows, columns, step = before.filters, bank.filters, [before.step, bank.step]
        _, _, left = _unpadded(bank.x, rows=False)
        x, top, more = _unpadded(before.x)
        corner = [top, left + more]
    else:
        x, *corner = _unpadded(bank.x)
        if bank.dim == 2:
            rows, step[0] = bank.filters, bank.step
        else:
            columns, step[1] = bank.filters, bank.step
    if shape_of(x)[1] >= LEAST_CHANNELS:
        tiles = shape_of(last)[2:]
        put(graph, last, SPLIT_TILES, (x, *rows.arguments(), *columns.arguments(), corner, step, tiles))
