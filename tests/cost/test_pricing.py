"""Prices of e-nodes that no kernel is measured for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from torch_eqsat.cost.pricing import PART_MS, Pricing
from torch_eqsat.cost.programs import captured_prices
from torch_eqsat.cost.roofline import Coefficients
from torch_eqsat.ir.program import Task
from torch_eqsat.ir.term import Node, attributes
from torch_eqsat.ir.types import TensorType

X = TensorType((64, 1024), "float32")
ADD = Node("pointwise", attributes(uid="aten.add.Tensor(%0, %1){}", dtype="float32"), (0, 1))


def prices_of_calls(task: Task) -> list[float]:
    prices = captured_prices(task, Pricing(frozen=True))
    calls = [term for term, node in enumerate(task.graph.nodes) if node.op == "fx"]
    return [sum(map(prices, task.parts.get(call, (call,)))) for call in calls]


def test_a_call_that_returns_a_tuple_is_not_free(task_of: Callable[..., Task]) -> None:
    call, values, indices = prices_of_calls(task_of(lambda x: torch.sort(x), (64, 1024)))
    assert call >= Pricing(frozen=True).opaque([X], X)
    assert values == indices == 0.0


def test_a_tuple_of_which_an_item_is_understood_is_priced_as_that_item(task_of: Callable[..., Task]) -> None:
    def run(x: Any) -> Any:
        return torch.ops.aten.split.Tensor(x, 32)[0].relu()

    split, _item, _relu = prices_of_calls(task_of(run, (64, 1024)))
    assert split == 0.0


def test_what_reads_nothing_and_returns_nothing_is_free() -> None:
    assert Pricing(frozen=True).price(Node("fx", attributes(uid="f()", shape=None), ()), [], None, [], False) == 0.0


def test_alone_an_operator_moves_all_its_bytes() -> None:
    slow = Coefficients(cheap_ns=0.0)
    fused, alone = (
        Pricing(frozen=True, coefficients=slow, memory_share=share).price(ADD, [X, X], X, [False] * 2, False)
        for share in (0.25, 1.0)
    )
    assert alone == 3 * X.bytes / slow.cache_bytes_per_ms
    assert fused == alone / 4


def test_filters_move_all_their_bytes_and_are_buffers_of_their_own() -> None:
    """Two filters of 64 rows each in place of 64 rows of a captured sum; of three coefficients one is zero."""
    bank = Node(
        "filter_bank", attributes(dim=0, into=0, step=1, dilation=1, coefficients=((1.0, 2.0), (0.0, 1.0))), (0,)
    )
    y = TensorType((126, 1024), "float32")
    slow = Coefficients(cheap_ns=0.0)
    price = Pricing(frozen=True, coefficients=slow).price(bank, [X], y, [False], False)
    assert price == pytest.approx(PART_MS + (X.bytes + y.bytes) / slow.cache_bytes_per_ms)
