"""Numbers that are exact on purpose and then decide: a coordinate over a cell size, a count against a threshold.

``floor(x / 41)`` is 1 for 41, and 0 if the division becomes a product with 1 / 41: an error of one unit in the last
place chooses another cell. Laws that hold but for rounding must not touch such numbers. Where a value has passed a
matrix product or a transcendental function it is rounded anyway, and nobody can count on its last place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import torch
import torch._inductor.inductor_prims  # registers the pools with offsets
from torch.fx import Graph
from torch.fx import Node as FxNode

from torch_eqsat.graph.calls import GETITEM, VIEWS
from torch_eqsat.graph.emitter import aten, prims

# A difference in the last place of an operand may decide between two unrelated results; comparisons are found apart.
_CHOOSING_NAMES = (
    "floor ceil round trunc frac fmod remainder floor_divide sign sgn signbit heaviside topk sort msort argsort argmax "
    "argmin max min median kthvalue mode cummax cummin bucketize searchsorted nonzero unique_dim _unique2 histc "
    "bincount"
)
_COMPARING_NAMES = "eq ne lt le gt ge equal isclose logical_not logical_and logical_or logical_xor"
# What rounds, but not where numbers are small whole ones, or those over a power of two; and what never does.
_ROUNDING_NAMES = (
    "add sub rsub mul div reciprocal square pow sqrt sum mean cumsum prod cumprod addcmul addcdiv avg_pool2d "
    "scatter_add"
)
_MOVING_NAMES = (
    "neg abs clamp clamp_min clamp_max maximum minimum where relu clone amax amin cat stack index _unsafe_index "
    "index_select gather embedding masked_fill constant_pad_nd flip roll repeat full_like zeros_like ones_like isnan "
    "isinf any all bitwise_and bitwise_or bitwise_xor bitwise_not max_pool2d_with_indices scatter slice_scatter "
    "select_scatter index_put"
)
_PRODUCT_NAMES = "mm bmm addmm baddbmm mv dot convolution"


def _packets(names: str) -> frozenset[object]:
    return frozenset(getattr(aten, name) for name in names.split())


_EQUALITIES = _packets("eq ne")
_CHOOSING = _packets(_CHOOSING_NAMES)
_DECIDING = _CHOOSING | _packets(_COMPARING_NAMES)
_PRODUCTS = _packets(_PRODUCT_NAMES)
_ROUNDING = _packets(_ROUNDING_NAMES)
_KEEPING = _ROUNDING | _packets(_MOVING_NAMES) | VIEWS | {prims._low_memory_max_pool_with_offsets}
_CONVERSIONS = (aten._to_copy.default, prims.convert_element_type.default)


def deciding(graph: Graph) -> set[FxNode]:
    """The calls that round, whose results may be exact and decide something: no law may change how they round.

    Products count only where their result is compared with a number of another origin: who tests for equality relies
    on exact products (three neighbours of a cell). Calls that are equal to one that decides count as well.
    """
    made = _made_by_products(graph)
    found = _between(graph, _KEEPING, _decides)
    found |= _between(graph, _KEEPING | _PRODUCTS, lambda node: _tests_a_product(node, made))
    return _with_equals(graph, {node for node in found if _packet(node) in _ROUNDING | _PRODUCTS})


def is_choice(node: FxNode) -> bool:
    """Whether a call chooses among its numbers or rounds them to whole ones: ties make unrelated results likely."""
    return _packet(node) in _CHOOSING


def _between(graph: Graph, keeping: Collection[object], decides: Callable[[FxNode], bool]) -> set[FxNode]:
    """What inputs, or the results of decisions, reach by calls that are ``keeping`` numbers exact, and is on the way to
    one that decides."""
    exact: set[FxNode] = set()
    for node in graph.nodes:
        sources = node.all_input_nodes  # none: an input, an attribute, or what a factory makes
        if not sources or _decides(node) or (_keeps_exact(node, keeping) and all(n in exact for n in sources)):
            exact.add(node)
    found: set[FxNode] = set()
    for node in reversed(graph.nodes):
        if node in exact and any(decides(user) or (user in found and not _decides(user)) for user in node.users):
            found.add(node)
    return found


def _keeps_exact(node: FxNode, keeping: Collection[object]) -> bool:
    return node.target is GETITEM or node.target in _CONVERSIONS or _packet(node) in keeping


def _decides(node: FxNode) -> bool:
    """Whether a call makes something else of a value that differs in the last place."""
    if _packet(node) in _DECIDING or node.target is aten.div.Tensor_mode:
        return True
    return node.target in _CONVERSIONS and _is_whole(node) and any(not _is_whole(n) for n in node.all_input_nodes)


def _made_by_products(graph: Graph) -> set[FxNode]:
    """What a product went into, but for the results of decisions."""
    found: set[FxNode] = set()
    for node in graph.nodes:
        if not _decides(node) and (_packet(node) in _PRODUCTS or any(n in found for n in node.all_input_nodes)):
            found.add(node)
    return found


def _tests_a_product(node: FxNode, made: Collection[FxNode]) -> bool:
    """Whether a call compares what a product made with a finite number, or with what none made. A comparison of two
    such, or with infinity, is part of a maximum or of a test for NaN."""
    if _packet(node) not in _EQUALITIES:
        return False
    first, second = node.args[:2]
    if isinstance(second, int | float):
        return first in made and math.isfinite(second)
    return (first in made) != (second in made)


def _with_equals(graph: Graph, found: Collection[FxNode]) -> set[FxNode]:
    """``found`` and the calls that compute the same: a term graph has one term for both."""
    numbers: dict[FxNode, int] = {}
    known: dict[str, int] = {}

    def numbered(operands: Any) -> str:
        return str(torch.fx.map_arg(operands, lambda n: f"%{numbers[n]}"))

    for node in graph.nodes if found else ():
        key = f"{node.target} {numbered((node.args, node.kwargs))}" if node.op == "call_function" else node.name
        numbers[node] = known.setdefault(key, len(known))
    equal = {numbers[node] for node in found}
    return {node for node, number in numbers.items() if number in equal}


def _packet(node: FxNode) -> object:
    return getattr(node.target, "overloadpacket", None)


def _is_whole(node: FxNode) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and not value.is_floating_point() and not value.is_complex()
