"""What is known of constants: those that factory operators make are computed while capturing, and weights are looked
at."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import Node as FxNode
from torch.utils._pytree import tree_leaves

from torch_eqsat.graph.calls import base_of, is_pinned, tensor_type
from torch_eqsat.ir.known import MODEST

FOLDED_PREFIX = "_eqsat_folded_"
_ARITHMETIC = "add sub rsub mul div neg sqrt rsqrt reciprocal pow mm bmm addmm sum mean cat clone"
ARITHMETIC = frozenset(getattr(torch.ops.aten, name) for name in _ARITHMETIC.split())
WIDE = (torch.float32, torch.float64, torch.bfloat16)
LARGEST_KNOWN = 1 << 16  # elements of an index whose values are looked at


_REARRANGING = "view reshape _unsafe_view permute expand unsqueeze clone"
REARRANGING = frozenset(getattr(torch.ops.aten, name) for name in _REARRANGING.split())
PASSED = REARRANGING | {torch.ops.prims.convert_element_type}


def copies_of_constants(constants: Collection[FxNode]) -> set[FxNode]:
    """Constants that hold each number several times, and views of them, of those that something else reads: laws see
    what they are copies of (a batch of products with copies of one matrix is one product with it)."""
    found: set[FxNode] = set()
    for node in constants:
        if all(user in constants for user in node.users):
            continue
        path = [node]
        while getattr(path[-1].target, "overloadpacket", None) in PASSED and path[-1].args[0] in constants:
            path.append(path[-1].args[0])
        if not isinstance(node.meta.get("val"), torch.Tensor):  # the graph of a loop
            continue
        sizes = [n.meta["val"].numel() for n in path]
        if sizes[0] > min(sizes):
            found.update(path[: sizes.index(min(sizes))])
    return found


def known_facts(node: FxNode, modest: Collection[FxNode] = ()) -> dict[str, Any]:
    """What is known of a constant (see torch_eqsat.ir.term.FACTS); ``modest`` are weights of which that is known."""
    value = _known_value(node, {})
    if value is None:
        if _only_moves(node, modest):
            return {"modest": 1}
        return {"tame": 1} if _is_tame(node, modest, {}) else {}
    return _facts_of(value) or _bounds_of(value)


def _bounds_of(value: torch.Tensor) -> dict[str, Any]:
    """The bounds of small integers, and whether floating numbers are modest."""
    if is_modest(value):
        return {"modest": 1}
    if value.dtype not in (torch.int64, torch.int32) or not value.numel():
        return {}
    with unset_fake_temporarily(), torch.no_grad():
        return {"least": int(value.min()), "most": int(value.max())}


def is_modest(value: torch.Tensor) -> bool:
    """Whether all numbers of a floating tensor are finite, and none is larger than MODEST in magnitude."""
    if not value.is_floating_point() or not value.numel():
        return False
    with unset_fake_temporarily(), torch.no_grad():
        try:
            return bool(value.abs().max() <= MODEST)  # NaN is not
        except (RuntimeError, NotImplementedError, TypeError):  # float8, sparse and quantised tensors
            return False


def _only_moves(node: FxNode, modest: Collection[FxNode]) -> bool:
    """Whether ``node`` holds numbers of weights in ``modest`` alone, as views and permutations of them do."""
    while node.op == "call_function" and base_of(node) is not node and isinstance(node.args[0], FxNode):
        node = node.args[0]
    return node in modest


def _is_tame(node: FxNode, modest: Collection[FxNode], known: dict[FxNode, bool]) -> bool:
    """Whether ``node`` is made of modest numbers alone, of weights mostly, by arithmetic that makes no masks of
    them."""
    if node not in known:
        if node in modest:
            known[node] = True
        elif node.op == "call_function" and node.all_input_nodes:
            numbers = [v for v in tree_leaves((node.args, node.kwargs)) if isinstance(v, (int, float))]
            packet = getattr(node.target, "overloadpacket", None)
            plain = packet in ARITHMETIC or base_of(node) is not node or _widens(node)
            small = all(abs(number) <= MODEST for number in numbers)
            known[node] = plain and small and all(_is_tame(n, modest, known) for n in node.all_input_nodes)
        else:
            value = _known_value(node, {})
            known[node] = value is not None and is_modest(value)
    return known[node]


def _widens(node: FxNode) -> bool:
    """Whether ``node`` converts to a dtype in which no modest number is infinite."""
    return node.target is torch.ops.prims.convert_element_type.default and node.args[1] in WIDE


def _facts_of(value: torch.Tensor) -> dict[str, Any]:
    if value.is_complex():
        return {}
    with unset_fake_temporarily(), torch.no_grad():
        if value.dtype == torch.int64 and (times := _repeats(value)):
            return {"repeats": times}
        if value.dim() == 2 and value.shape[0] == value.shape[1] > 1:
            if torch.equal(value, torch.eye(value.shape[0], device=value.device).to(value.dtype)):
                return {"eye": 1}
            if torch.equal(value, torch.ones_like(value).triu(1)):
                return {"upper": 1}
        number = value.flatten()[0].item()
        return {"value": float(number)} if bool((value == number).all()) and value.is_floating_point() else {}


def _repeats(value: torch.Tensor) -> int:
    """s if ``value`` is 0, 0, …, 1, 1, … with each number s times (what upsampling by s reads); 0 otherwise."""
    if value.numel() < 2 or max(value.shape) < value.numel():
        return 0
    flat = value.flatten().tolist()
    times = flat.count(0)
    return times if times and flat == [i // times for i in range(len(flat))] else 0


def _known_value(node: FxNode, known: dict[FxNode, torch.Tensor | None]) -> torch.Tensor | None:
    """The value of a small term of factory operators and folded buffers, evaluated; None for any other. ``known`` holds
    what was asked before."""
    if node not in known:
        type_ = tensor_type(node.meta.get("val"))
        known[node] = _evaluate(node, known) if type_ is not None and type_.numel <= LARGEST_KNOWN else None
    return known[node]


def _evaluate(node: FxNode, known: dict[FxNode, torch.Tensor | None]) -> torch.Tensor | None:
    if node.op == "get_attr":
        value = getattr(node.graph.owning_module, str(node.target), None)
        folded = isinstance(value, torch.Tensor) and str(node.target).startswith(FOLDED_PREFIX)
        return value if folded else None
    if node.op != "call_function" or is_pinned(node) or "empty" in str(node.target):  # whatever lay in memory
        return None
    operands = {n: _known_value(n, known) for n in node.all_input_nodes}
    if any(value is None for value in operands.values()):
        return None
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), operands.__getitem__)
    with unset_fake_temporarily(), torch.no_grad():
        return node.target(*args, **kwargs)
