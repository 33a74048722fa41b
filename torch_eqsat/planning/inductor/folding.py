"""Keeps Inductor's passes over frozen graphs from what they get wrong (torch 2.14.1).

- Factors behind a transposed convolution are folded into the kernel, whose first axis is taken for the outputs
  (torch/_inductor/fx_passes/binary_folding.py). Of a transposed convolution that axis is the inputs:
  `conv_transpose(x) * k`, and a batch norm in its place, were off by a quarter where there are as many inputs as
  outputs.
- Numbers behind convolutions are folded into kernels and biases by way of constants that all have one name: of
  `conv(conv(x) * 0.5) + 1.0` both became the last number.
- Behind a convolution a row, [1, n], is taken for one of channels where there are n of them, a factor `alpha` of an
  addend is left out, and an addend of another dtype becomes a bias that oneDNN refuses.
- Behind products (`enable_linear_binary_folding`) `alpha` and `beta` are left out, and constants are used before they
  are made. Products of one input that are joined (`cpp.enable_concat_linear`) lose theirs as well.
- Weights are packed for oneDNN whatever their dtype (torch/_inductor/fx_passes/mkldnn_fusion.py). Those of convolutions
  in float64, and of products of integers, cannot be, and the graph did not compile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch._inductor.fx_passes import freezing_patterns
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import Graph, Node

from torch_eqsat.graph.emitter import aten

_TRANSPOSED = 6  # the position of the flag among the arguments of aten.convolution
_BINARY = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}
_PACKED = {aten.convolution.default, aten.mm.default, aten.addmm.default, aten.bmm.default}
_FOR_ONEDNN = {torch.float32, torch.bfloat16, torch.float16}


@contextmanager
def without_wrong_folds() -> Iterator[None]:
    """Compile in here: Inductor's passes do not see the calls that they get wrong."""
    folding = freezing_patterns.binary_folding_pass
    passes = [(folding, _hiding(_with_own_constants(folding.apply), _cannot_be_folded))]
    passes += [(found, _hiding(found.apply, _cannot_be_packed)) for found in freezing_patterns.pass_patterns]
    with contextlib.ExitStack() as stack:
        for found, apply in passes:
            stack.enter_context(mock.patch.object(found, "apply", apply))
        yield


def _hiding(apply: Callable[[Graph], Any], is_hidden: Callable[[Node], bool]) -> Callable[[Graph], Any]:
    """``apply``, a pass, that does not see some of the calls."""

    def apply_to_others(graph: Graph) -> Any:
        targets = {node: node.target for node in graph.nodes if is_hidden(node)}
        for node in targets:
            node.target = _hidden
        try:
            return apply(graph)
        finally:
            for node, target in targets.items():
                node.target = target

    return apply_to_others


def _hidden(*_: Any) -> None:
    """The target of a hidden call meanwhile."""


def _with_own_constants(apply: Callable[[Graph], Any]) -> Callable[[Graph], Any]:
    """``apply``, a pass that folds what stands behind convolutions, to which each number there is a constant with a
    name of its own."""

    def apply_to_constants(graph: Graph) -> Any:
        lifted: dict[Node, tuple[Any, Node]] = {}
        try:
            for node in [node for node in graph.nodes if _has_number(node)]:
                lifted[node] = node.args[1], _constant_before(node)
            return apply(graph)
        finally:
            left = set(graph.nodes)
            for node, (number, constant) in lifted.items():
                if node in left:
                    node.update_arg(1, number)
                if not constant.users:
                    graph.erase_node(constant)
                    delattr(graph.owning_module, str(constant.target))

    return apply_to_constants


def _has_number(node: Node) -> bool:
    """Whether a number is applied to a convolution."""
    return node.target in _BINARY and _is_convolution(node.args[0]) and isinstance(node.args[1], float)


def _constant_before(node: Node) -> Node:
    """A constant of the graph that takes the place of the number that ``node`` applies to a convolution."""
    image, number = node.args
    weight, name = image.args[1].meta["val"], f"_eqsat_number_{node.name}"
    with unset_fake_temporarily():
        held = torch.tensor(number, dtype=weight.dtype, device=weight.device)
    node.graph.owning_module.register_buffer(name, held)
    with node.graph.inserting_before(node):
        constant = node.graph.get_attr(name)
    constant.meta["val"] = held
    node.update_arg(1, constant)
    return constant


def _is_convolution(value: Any) -> bool:
    return isinstance(value, Node) and value.target is aten.convolution.default


def _cannot_be_folded(node: Node) -> bool:
    """Whether a call is one that the pass gets wrong: a transposed convolution, a product (folded only if the user asks
    for it), and what is applied to a convolution with `alpha`, by other axes than its channels, or in another dtype."""
    if node.target in (aten.mm.default, aten.addmm.default):
        return True
    if _is_convolution(node):
        return bool(node.args[_TRANSPOSED])
    if node.target not in _BINARY or not _is_convolution(node.args[0]):
        return False
    other = node.args[1]
    if node.kwargs:
        return True
    if not isinstance(other, Node) or other.op != "get_attr":  # of others the pass takes numbers alone
        return False
    result, constant = node.meta["val"], other.meta["val"]
    is_addend = node.target in (aten.add.Tensor, aten.sub.Tensor)
    return (constant.numel() != 1 and constant.dim() < result.dim() - 1) or (
        is_addend and constant.dtype != result.dtype
    )


def _cannot_be_packed(node: Node) -> bool:
    if node.target is aten.addmm.default and node.kwargs:
        return True
    value = node.meta.get("val")
    return node.target in _PACKED and isinstance(value, torch.Tensor) and value.dtype not in _FOR_ONEDNN
