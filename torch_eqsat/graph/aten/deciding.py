"""Numbers that are exact on purpose and then decide: a coordinate over a cell size, a count against a threshold.

``floor(x / 41)`` is 1 for 41, and 0 if the division becomes a product with 1 / 41: an error of one unit in the last
place chooses another cell. Laws that hold but for rounding must not touch such numbers. Where a value has passed a
matrix product or a transcendental function it is rounded anyway, and nobody can count on its last place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch.fx import Graph
from torch.fx import Node as FxNode

from torch_eqsat.graph.calls import GETITEM, VIEWS
from torch_eqsat.graph.emitter import aten, prims

# A difference in the last place of an operand may decide between two unrelated results; comparisons are found apart.
_CHOOSING_NAMES = (
    "floor ceil round trunc frac fmod remainder floor_divide sign sgn heaviside topk sort msort argsort argmax argmin "
    "max min median kthvalue mode bucketize searchsorted nonzero unique_dim _unique2 histc bincount"
)
_COMPARING_NAMES = "eq ne lt le gt ge equal isclose logical_not logical_and logical_or logical_xor"
# Exact on counts, indices and coordinates, which are small whole numbers or those over a power of two.
_ROUNDING_NAMES = "add sub rsub mul div square pow sqrt sum mean cumsum prod"
_EXACT_NAMES = (
    "neg abs clamp clamp_min clamp_max maximum minimum where relu clone amax amin cat stack index index_select gather "
    "embedding masked_fill constant_pad_nd flip roll repeat full_like zeros_like ones_like"
)
_PRODUCT_NAMES = "mm bmm addmm baddbmm mv dot convolution"


def _packets(names: str) -> frozenset[object]:
    return frozenset(getattr(aten, name) for name in names.split())


_EQUALITIES = _packets("eq ne")
_CHOOSING = _packets(_CHOOSING_NAMES)
_DECIDING = _CHOOSING | _packets(_COMPARING_NAMES)
_PRODUCTS = _packets(_PRODUCT_NAMES)
_ROUNDING = _packets(_ROUNDING_NAMES)
_EXACT = _packets(_EXACT_NAMES) | _ROUNDING | VIEWS
_CONVERSIONS = (aten._to_copy.default, prims.convert_element_type.default)


def deciding(graph: Graph) -> set[FxNode]:
    """The calls that round, whose results may be exact and decide something: no law may change how they round.

    Products are among them only where results are tested for equality (three neighbours of a cell), which makes no
    sense for rounded numbers; the largest of many scores does.
    """
    found = _between(graph, _EXACT | _DECIDING, _decides)
    found |= _between(graph, _EXACT | _PRODUCTS, lambda node: _packet(node) in _EQUALITIES)
    return {node for node in found if _packet(node) in _ROUNDING | _PRODUCTS}


def is_choice(node: FxNode) -> bool:
    """Whether a call chooses among its numbers or rounds them to whole ones: ties make unrelated results likely."""
    return _packet(node) in _CHOOSING


def _between(graph: Graph, keeping: Collection[object], decides: Callable[[FxNode], bool]) -> set[FxNode]:
    """What inputs reach by calls that are ``keeping`` numbers exact, and is on the way to one that decides."""
    exact: set[FxNode] = set()
    for node in graph.nodes:
        sources = node.all_input_nodes  # none: an input, an attribute, or what a factory makes
        if not sources or (_keeps_exact(node, keeping) and all(n in exact for n in sources)):
            exact.add(node)
    found: set[FxNode] = set()
    for node in reversed(graph.nodes):
        if node in exact and any(decides(user) or user in found for user in node.users):
            found.add(node)
    return found


def _keeps_exact(node: FxNode, keeping: Collection[object]) -> bool:
    return node.target is GETITEM or node.target in _CONVERSIONS or _packet(node) in keeping


def _decides(node: FxNode) -> bool:
    """Whether a call makes something else of a value that differs in the last place."""
    if _packet(node) in _DECIDING or node.target is aten.div.Tensor_mode:
        return True
    return node.target in _CONVERSIONS and _is_whole(node) and any(not _is_whole(n) for n in node.all_input_nodes)


def _packet(node: FxNode) -> object:
    return getattr(node.target, "overloadpacket", None)


def _is_whole(node: FxNode) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and not value.is_floating_point() and not value.is_complex()
