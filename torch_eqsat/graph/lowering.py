"""The meaning of each operator of the language as ATen calls.

One table serves three readers: rebuilding emits FX nodes with it, the judge and the tests of laws run it on tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch_eqsat.graph.aten import elementwise, layout, lookups, products, reductions
from torch_eqsat.graph.emitter import Emitter, Lowering, Value, torch_dtype
from torch_eqsat.ir.term import Node
from torch_eqsat.ir.types import TensorType

LOWERINGS: dict[str, Lowering] = {
    **elementwise.TO_ATEN,
    **products.TO_ATEN,
    **layout.TO_ATEN,
    **reductions.TO_ATEN,
    **lookups.TO_ATEN,
}


def lower(emit: Emitter, node: Node, args: Sequence[Value], types: Sequence[TensorType]) -> Value:
    """``node`` applied to ``args`` (whose types are ``types``) through ``emit``.

    Raises KeyError for the operators that only the captured graph can give a meaning (input, fx, pointwise).
    """
    attrs = dict(node.attrs)
    if node.op == "scalar":
        return attrs["value"]
    if node.op not in ("add", "mul"):
        args = [_as_tensor(emit, arg, type_) for arg, type_ in zip(args, types, strict=True)]
    return LOWERINGS[node.op](emit, attrs, args)


def _as_tensor(emit: Emitter, arg: Value, type_: TensorType) -> Value:
    if isinstance(arg, (int, float)):
        return emit.number(arg, type_.shape, torch_dtype(type_.dtype))
    return arg
