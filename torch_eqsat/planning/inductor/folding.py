"""Keeps Inductor from a fold that is wrong: of factors behind a transposed convolution, under freezing.

Inductor folds them into the kernel, and takes its first axis for the outputs (torch 2.14.1,
torch/_inductor/fx_passes/binary_folding.py). Of a transposed convolution that axis is the inputs:
`conv_transpose(x) * k`, and a batch norm in its place, were off by a quarter where there are as many inputs as outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from torch._inductor.fx_passes import freezing_patterns
from torch.fx import Graph, Node

from torch_eqsat.graph.emitter import aten

_TRANSPOSED = 6  # the position of the flag among the arguments of aten.convolution


@contextmanager
def without_wrong_folds() -> Iterator[None]:
    """Compile in here: Inductor's pass does not see transposed convolutions."""
    folding = freezing_patterns.binary_folding_pass
    fold = folding.apply

    def fold_all_others(graph: Graph) -> Any:
        transposed = [node for node in graph.nodes if _is_transposed(node)]
        for node in transposed:
            node.target = _hidden
        try:
            return fold(graph)
        finally:
            for node in transposed:
                node.target = aten.convolution.default

    with mock.patch.object(folding, "apply", fold_all_others):
        yield


def _hidden(*_: Any) -> None:
    """The target of a transposed convolution meanwhile."""


def _is_transposed(node: Node) -> bool:
    return node.target is aten.convolution.default and bool(node.args[_TRANSPOSED])
