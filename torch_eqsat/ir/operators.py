"""The tensor language: its operators by name.

The language is small on purpose. An operator of the user's graph that it does not know is a ``fx`` node: opaque, with
its operands, so that everything around it is still optimized.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch_eqsat.ir.families import elementwise, layout, leaves, lookups, products, reductions
from torch_eqsat.ir.operator import Attrs, require
from torch_eqsat.ir.types import TensorType

_FAMILIES = (
    leaves.OPERATORS,
    elementwise.OPERATORS,
    products.OPERATORS,
    layout.OPERATORS,
    reductions.OPERATORS,
    lookups.OPERATORS,
)
OPERATORS = {record.name: record for family in _FAMILIES for record in family}


def infer_type(op: str, attrs: Attrs, types: Sequence[TensorType]) -> TensorType:
    """The type of ``op`` applied to operands of ``types``.

    Raises TypeMismatchError when the operands do not fit.

    >>> infer_type("matmul", {}, [TensorType((2, 3), "float32"), TensorType((3, 5), "float32")]).shape
    (2, 5)
    """
    operator = OPERATORS[op]
    if operator.arity is not None:
        require(len(types) == operator.arity, f"{op} takes {operator.arity} operands, not {len(types)}")
    return operator.infer(attrs, types)
