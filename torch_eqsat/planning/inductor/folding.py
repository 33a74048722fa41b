"""Keeps Inductor's passes over frozen graphs from what they get wrong (torch 2.14.1).

- Factors behind a transposed convolution are folded into the kernel, whose first axis is taken for the outputs
  (torch/_inductor/fx_passes/binary_folding.py). Of a transposed convolution that axis is the inputs:
  `conv_transpose(x) * k`, and a batch norm in its place, were off by a quarter where there are as many inputs as
  outputs.
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
from torch.fx import Graph, Node

from torch_eqsat.graph.emitter import aten

_TRANSPOSED = 6  # the position of the flag among the arguments of aten.convolution
_PACKED = {aten.convolution.default, aten.mm.default, aten.addmm.default, aten.bmm.default}
_FOR_ONEDNN = {torch.float32, torch.bfloat16, torch.float16}


@contextmanager
def without_wrong_folds() -> Iterator[None]:
    """Compile in here: Inductor's passes do not see the calls that they get wrong."""
    with contextlib.ExitStack() as stack:
        for found, is_hidden in (
            (freezing_patterns.binary_folding_pass, _is_transposed),
            *((pattern, _cannot_be_packed) for pattern in freezing_patterns.pass_patterns),
        ):
            stack.enter_context(mock.patch.object(found, "apply", _hiding(found.apply, is_hidden)))
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


def _is_transposed(node: Node) -> bool:
    return node.target is aten.convolution.default and bool(node.args[_TRANSPOSED])


def _cannot_be_packed(node: Node) -> bool:
    value = node.meta.get("val")
    return node.target in _PACKED and isinstance(value, torch.Tensor) and value.dtype not in _FOR_ONEDNN
