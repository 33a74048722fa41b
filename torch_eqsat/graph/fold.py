"""Evaluates terms made of factory operators (arange, full, eye) and literals alone into buffers, for frozen graphs.

Stock constant folding stops at a factory operator, and the folding of weights and the packing of convolutions with it;
position biases and masks that are computed from ``arange`` are computed in every call otherwise.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import Graph
from torch.fx import Node as FxNode

from torch_eqsat.graph.calls import base_of, is_loop, tensor_type
from torch_eqsat.graph.capture import constant_nodes
from torch_eqsat.graph.facts import FOLDED_PREFIX

aten = torch.ops.aten
LITERAL_PREFIX = "_tensor_constant"  # what tracing calls the tensors that a forward makes from numbers of its own
LARGEST_BYTES = 16 << 20  # a larger table costs more to read than most are to make
MOST_BYTES = 512 << 20  # of all values on the way


def fold_factories(graph: Graph, weights: Collection[FxNode]) -> int:
    """Replace terms of ``graph`` made of factory operators and literals by buffers, in place; how many. Results are
    bitwise the same."""
    factories = constant_nodes(graph, ())
    constants = constant_nodes(graph, weights)
    values = _literals(graph)
    count = made_bytes = 0
    for node in list(graph.nodes):
        if node not in factories or node.op != "call_function":
            continue
        type_ = tensor_type(node.meta.get("val"))
        if type_ is None or type_.bytes > LARGEST_BYTES or any(n not in values for n in node.all_input_nodes):
            continue
        made_bytes += type_.bytes
        if made_bytes > MOST_BYTES:
            break
        values[node] = _evaluate(node, values)
    for node, value in values.items():
        if node.op == "get_attr":
            continue
        # An output would hand the caller the compiled-in buffer itself; loops carry no constants.
        users = [user for user in node.users if user not in values and not _is_returned(user) and not is_loop(user)]
        if node.target is aten.full.default:  # Inductor inlines uniform values, but not into weights
            users = [user for user in users if user in constants]
        if users:
            _replace(graph, node, value, users, count)
            count += 1
    if count:
        graph.eliminate_dead_code()
    return count


def _literals(graph: Graph) -> dict[FxNode, torch.Tensor]:
    """The values of literals. Nothing writes to them: what a forward works with is a copy."""
    found = {}
    for node in graph.find_nodes(op="get_attr"):
        value = getattr(graph.owning_module, str(node.target), None)
        if str(node.target).startswith(LITERAL_PREFIX) and type(value) is torch.Tensor:
            found[node] = value
    return found


def _is_returned(user: FxNode) -> bool:
    """Whether ``user`` is the output, or may be a view that is returned."""
    return user.op == "output" or (base_of(user) is not user and any(_is_returned(other) for other in user.users))


def _evaluate(node: FxNode, values: dict[FxNode, torch.Tensor]) -> torch.Tensor:
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda n: values[n])
    with unset_fake_temporarily(), torch.no_grad():
        result: Any = node.target(*args, **kwargs)
    assert isinstance(result, torch.Tensor)
    return result


def _replace(graph: Graph, node: FxNode, value: torch.Tensor, users: list[FxNode], number: int) -> None:
    module = graph.owning_module
    while hasattr(module, name := f"{FOLDED_PREFIX}{number}"):
        number += 1
    module.register_buffer(name, value)
    with graph.inserting_before(node):
        constant = graph.get_attr(name)
    constant.meta = dict(node.meta)
    for user in users:
        user.replace_input_with(node, constant)
