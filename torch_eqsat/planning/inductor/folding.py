"""Keeps Inductor's passes over frozen graphs from what they get wrong (torch 2.14.1).

- Factors behind a transposed convolution are folded into the kernel, whose first axis is taken for the outputs
  (torch/_inductor/fx_passes/binary_folding.py). Of a transposed convolution that axis is the inputs:
  `conv_transpose(x) * k`, and a batch norm in its place, were off by a quarter where there are as many inputs as
  outputs.
- Numbers behind convolutions are folded into kernels and biases by way of constants that all have one name: of
  `conv(conv(x) * 0.5) + 1.0` both became the last number.
- A row behind a convolution, [1, n], is taken for one of channels where there are n of them, and a factor `alpha` of an
  addend is left out.
- Weights are packed for oneDNN whatever their dtype (torch/_inductor/fx_passes/mkldnn_fusion.py). Those of convolutions
  in float64, and of products of integers, cannot be, and the graph did not compile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
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
        lifted = {node: node.args[1] for node in graph.nodes if _has_number(node)}
        constants = {node: _constant_before(node, number) for node, number in lifted.items()}
        try:
            return apply(graph)
        finally:
            left = set(graph.nodes)
            for node, constant in constants.items():
                if node in left:
                    node.update_arg(1, lifted[node])
                if not constant.users:
                    graph.erase_node(constant)
                    delattr(graph.owning_module, str(constant.target))

    return apply_to_constants


def _has_number(node: Node) -> bool:
    """Whether a number is applied to a convolution or a product."""
    if node.target not in _BINARY or not isinstance(node.args[0], Node) or not isinstance(node.args[1], float):
        return False
    applied = node.args[0].args[0] if node.args[0].target is aten.reshape.default else node.args[0]
    return isinstance(applied, Node) and applied.target in _PACKED


def _constant_before(node: Node, number: Any) -> Node:
    """A constant of the graph that is the ``number`` applied in ``node``, which it takes the place of."""
    module, value = node.graph.owning_module, node.meta["val"]
    with unset_fake_temporarily():
        held = torch.tensor(number, dtype=value.dtype, device=value.device)
    name = next(name for i in count() if not hasattr(module, name := f"_eqsat_number{i}"))
    module.register_buffer(name, held)
    with node.graph.inserting_before(node):
        constant = node.graph.get_attr(name)
    constant.meta["val"] = held
    node.update_arg(1, constant)
    return constant


def _is_convolution(value: Any) -> bool:
    return isinstance(value, Node) and value.target is aten.convolution.default


def _cannot_be_folded(node: Node) -> bool:
    """Whether a call is one that the pass gets wrong: a transposed convolution, or what is applied to a convolution by
    other axes than those of its channels or by a factor."""
    if _is_convolution(node):
        return bool(node.args[_TRANSPOSED])
    if node.target not in _BINARY or not any(map(_is_convolution, node.args)):
        return False
    given = [a.meta.get("val") for a in node.args if isinstance(a, Node)]
    sizes = [v.dim() for v in given if isinstance(v, torch.Tensor) and v.numel() != 1]
    return bool(node.kwargs) or min(sizes, default=0) < max(sizes, default=0) - 1


def _cannot_be_packed(node: Node) -> bool:
    value = node.meta.get("val")
    return node.target in _PACKED and isinstance(value, torch.Tensor) and value.dtype not in _FOR_ONEDNN
