"""Prices of e-nodes that no kernel is measured for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from torch_eqsat.cost.inductor.residency import Residency
from torch_eqsat.cost.model import TermContext
from torch_eqsat.cost.pricing import MADE_OF_WEIGHTS, PART_MS, Pricing
from torch_eqsat.cost.programs import captured_prices, captured_program
from torch_eqsat.cost.roofline import Coefficients
from torch_eqsat.ir.operators import OPERATORS
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


WEIGHT, NUMBER, ROW = (
    TensorType((1024, 4096), "float32"),
    TensorType((1, 1), "float32"),
    TensorType((1, 1024), "float32"),
)
MUL = Node("mul", (), (0, 1))
SLOW = Coefficients(cheap_ns=0.0, launch_ms=0.0)


@pytest.mark.parametrize("constants", [(True, False), (True, True)], ids=["by a value", "by a weight"])
def test_what_is_made_of_a_live_weight_is_read_whole_and_written(constants: tuple[bool, bool]) -> None:
    """The scale of a norm, moved onto the weight of one token's product, took 33 MB for each token."""
    warm = Pricing(frozen=False, coefficients=SLOW)
    cold = Pricing(frozen=False, coefficients=SLOW, residency=Residency(shared=1 << 30))
    write_rate = SLOW.cache_bytes_per_ms if WEIGHT.bytes <= SLOW.cache_bytes else SLOW.bytes_per_ms
    for pricing, rate in ((warm, SLOW.cache_bytes_per_ms), (cold, SLOW.bytes_per_ms)):
        price = pricing.price(MUL, [WEIGHT, NUMBER], WEIGHT, constants, all(constants))
        assert price == pytest.approx(MADE_OF_WEIGHTS * (WEIGHT.bytes / rate + WEIGHT.bytes / write_rate), rel=0.01)
    assert cold.price(MUL, [ROW, NUMBER], ROW, [False, False], False) < 1e-3 * price


def test_a_frozen_weight_is_no_cheaper_to_scale_in_each_call() -> None:
    """By a number of the call, which nothing folds: a copy of 9.4 MB was made for each token."""
    frozen, live = (Pricing(frozen=f, coefficients=SLOW, residency=Residency(shared=1 << 30)) for f in (True, False))
    made = [p.price(MUL, [WEIGHT, NUMBER], WEIGHT, (True, False), False) for p in (frozen, live)]
    assert made[0] == made[1] > WEIGHT.bytes / SLOW.bytes_per_ms


def test_vectors_of_weights_are_read_along() -> None:
    gamma = TensorType((1024,), "float32")
    live, frozen = (Pricing(frozen=f, coefficients=SLOW) for f in (False, True))
    constants = (False, True)
    assert live.price(MUL, [X, gamma], X, constants, False) == frozen.price(MUL, [X, gamma], X, constants, False)


def test_frozen_weights_are_computed_with_once() -> None:
    assert Pricing(frozen=True).price(MUL, [WEIGHT, NUMBER], WEIGHT, (True, True), True) == 0.0


def test_weights_that_the_last_level_holds_stay_there() -> None:
    """12 MB of weights were priced from memory beside 32 MiB of cache."""
    product = Node("matmul", (), (0, 1))
    large = Coefficients(cache_bytes=8 << 20, last_level_bytes=32 << 20)
    for megabytes, is_cold in ((12, False), (80, True)):
        pricing = Pricing(frozen=False, coefficients=large, residency=Residency(shared=megabytes << 20))
        assert pricing.kernel_of(product, [ROW, WEIGHT], [False, True]).cold is is_cold


@pytest.mark.parametrize("op", ["matmul", "conv"])
def test_what_is_just_made_is_in_memory_where_it_is_large(op: str) -> None:
    """The weight of a vocabulary, scaled anew for each token of a decoder, was priced as lying in the cache: 0.68x."""
    pricing = Pricing(frozen=False, coefficients=Coefficients(cache_bytes=8 << 20, last_level_bytes=32 << 20))
    steps = attributes(stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1) if op == "conv" else ()
    for width, is_cold in ((1024, False), (32_000, True)):
        shapes = [(1, 1024), (1024, width)] if op == "matmul" else [(1, 1024, 1, 1), (width, 1024, 1, 1)]
        types = [TensorType(shape, "float32") for shape in shapes]
        assert pricing.kernel_of(Node(op, steps, (0, 1)), types, [False, False]).cold is is_cold


def test_rows_of_any_rank_are_one_product() -> None:
    product, pricing = Node("matmul", (), (0, 1)), Pricing(frozen=True)
    flat, split = (TensorType(shape, "float32") for shape in ((6, 8), (2, 3, 8)))
    matrix = TensorType((8, 4), "float32")
    kernels = [pricing.kernel_of(product, [rows, matrix], [False, True]).key for rows in (flat, split)]
    assert kernels[0] == kernels[1]


@pytest.mark.parametrize(
    ("exponent", "work"), [("3", "cheap"), ("-1", "cheap"), ("0.5", "cheap"), ("2.7", "slow"), ("64", "slow")]
)
def test_powers_are_multiplied_out(exponent: str, work: str) -> None:
    node = Node("pointwise", attributes(uid=f"aten.pow.Tensor_Scalar(%0, {exponent}){{}}", dtype="float32"), (0,))
    price = Pricing(frozen=False).price(node, [X], X, [False], False)
    slow = Pricing(frozen=False, coefficients=Coefficients(slow_ns=1e3)).price(node, [X], X, [False], False)
    assert (slow > price) is (work == "slow")


@pytest.mark.parametrize("frozen", [False, True])
def test_a_full_addend_is_written_before_the_product_is_added(task_of: Callable[..., Task], frozen: bool) -> None:
    def full(x: Any, y: Any, z: Any) -> Any:
        return x @ y + z

    def bias(x: Any, y: Any, z: Any) -> Any:
        return x @ y + z[0]

    def cost(function: Any) -> float:
        task = task_of(function, (64, 32), (32, 64), (64, 64))
        whole, nodes = (captured_program(task, Pricing(frozen=frozen, whole=w)).cost for w in (True, False))
        return whole - nodes

    assert (cost(full) > 0) is not frozen and cost(bias) == 0


def test_shuffled_elements_cost_more_in_half_precision() -> None:
    view, context = Node("view", attributes(shape=(1024, 64)), (0,)), TermContext(shuffled=True)
    single, half = (
        Pricing(frozen=False).price(view, [x], TensorType((1024, 64), x.dtype), [False], False, context)
        for x in (X, TensorType(X.shape, "bfloat16"))
    )
    assert half > 2 * single > 0


def test_sums_along_the_windows_of_live_kernels_are_no_vectors() -> None:
    kernel, made = TensorType((128, 128, 3, 3), "float32"), TensorType((512, 128, 1, 3), "float32")
    bank = Node("filter_bank", attributes(dim=2, into=0, step=1, dilation=1, coefficients=((1.0, 1.0, 1.0),) * 4), (0,))
    live, slow = (Pricing(frozen=False, coefficients=Coefficients(gather_ns=ns)) for ns in (0.45, 4.5))
    price, slower = (p.price(bank, [kernel], made, [True], True) for p in (live, slow))
    assert slower > 5 * price
    assert live.price(bank, [kernel], made, [False], False) == slow.price(bank, [kernel], made, [False], False)


@pytest.mark.parametrize(
    ("shape", "dtype", "tiles", "share"),
    [
        ((1, 16, 64, 64), "float32", True, 0.5),
        ((1, 16, 64, 64), "float32", False, 1.0),
        ((1, 15, 64, 64), "float32", True, 1.0),
        ((16, 16, 64), "float32", True, 1.0),
        ((1, 16, 64, 64), "float64", True, 1.0),
    ],
)
def test_banks_that_kernels_of_ours_compute_move_half_as_much(
    shape: tuple[int, ...], dtype: str, tiles: bool, share: float
) -> None:
    x = TensorType(shape, dtype)
    places = {"dim": len(shape) - 1, "into": 1, "step": 1, "dilation": 1}
    node = Node("filter_bank", (*places.items(), ("coefficients", ((1.0, 1.0),))), (0,))
    result = OPERATORS["filter_bank"].infer(dict(node.attrs), [x])
    free = Coefficients(cheap_ns=0.0, cache_bytes=1e9, cache_bytes_per_ms=1.0)
    price = Pricing(frozen=True, coefficients=free, tiles=tiles).price(node, [x], result, [False], False)
    assert price == pytest.approx(share * (x.bytes + result.bytes))
