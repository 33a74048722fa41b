"""Half precision: what is derived from weights is formed in single precision and rounded once.

A law that moves a factor into a half-precision kernel makes a product of constants in half precision. Computed as
written, each such step would round. Constants, sums and products with constants therefore have a second value, in
single precision and not yet rounded; further steps read that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from torch_eqsat.graph.emitter import Emitter, prims, torch_dtype
from torch_eqsat.graph.lowering import lower
from torch_eqsat.ir.program import KERNEL
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.ir.types import HALF, TensorType

WIDE = "float32"


class Unrounded:
    """The nodes of ``program`` that have a value that is not yet rounded. ``values`` are those of its nodes so far."""

    def __init__(self, program: TermGraph, values: Sequence[Any], *, frozen: bool) -> None:
        self._program, self._values, self._frozen = program, values, frozen
        self._wide: dict[int, Any] = {}

    def lower(self, emit: Emitter, index: int, args: Sequence[Any]) -> Any:
        """The value of the node ``index``, applied to ``args``."""
        program = self._program
        node, result = program.nodes[index], program.types[index]
        types = [t for child in node.children if (t := program.types[child]) is not None]
        if result is None or result.dtype not in HALF or len(types) != len(node.children):
            return lower(emit, node, args, types)
        if node.op == "convert" and types[0].dtype == WIDE:
            self._wide[index] = args[0]
            return lower(emit, node, args, types)
        if not self._is_formed_wide(index):
            return lower(emit, node, args, types)
        plain = type(node)(node.op, tuple(a for a in node.attrs if a[0] != KERNEL), node.children)
        wide_types = [TensorType(t.shape, WIDE) if t.dtype in HALF else t for t in types]
        wide = lower(emit, plain, [self._unrounded(emit, child) for child in node.children], wide_types)
        if not isinstance(wide, torch.fx.Node):  # a number that was made of numbers
            return lower(emit, node, args, types)
        self._wide[index] = wide
        return emit.call(prims.convert_element_type.default, wide, torch_dtype(result.dtype))

    def _is_formed_wide(self, index: int) -> bool:
        """Whether the node is formed in single precision: made of frozen weights, or a sum or product with some."""
        program = self._program
        node = program.nodes[index]
        if not node.children or node.op == "convert":
            return False
        if self._frozen and program.constant[index]:
            return True
        tensors = [c for c in node.children if program.constant[c] and program.nodes[c].op != "scalar"]
        return node.op in ("add", "mul") and len(tensors) == 1 and tensors[0] in self._wide

    def _unrounded(self, emit: Emitter, child: int) -> Any:
        type_ = self._program.types[child]
        value = self._wide.get(child, self._values[child])
        if not isinstance(value, torch.fx.Node) or type_ is None or type_.dtype not in HALF or child in self._wide:
            return value
        return emit.call(prims.convert_element_type.default, value, torch_dtype(WIDE))
