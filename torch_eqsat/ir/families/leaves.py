"""Values that are given, numbers, and calls as captured."""

from __future__ import annotations

from typing import Any

from torch_eqsat.ir.known import MODEST, Interval
from torch_eqsat.ir.operator import (
    Attrs,
    Operator,
    Types,
    always,
    declare,
    never,
    no_attributes,
    no_indices,
    not_known,
    nothing_moved,
    streamed,
    tame_as_all,
)
from torch_eqsat.ir.types import TensorType


def _declared(attrs: Attrs, _: Types) -> TensorType:
    return TensorType(attrs["shape"], attrs["dtype"])


def _of_input(facts: Attrs, _: Any, __: Any, result: TensorType) -> Interval | None:
    if "value" in facts:
        return float(facts["value"]), float(facts["value"])
    if "eye" in facts or "upper" in facts or result.dtype == "bool":
        return 0.0, 1.0
    if "repeats" in facts:
        return 0.0, float((result.numel - 1) // facts["repeats"])
    if "least" in facts:
        return float(facts["least"]), float(facts["most"])
    return (-MODEST, MODEST) if "modest" in facts else None


def _number(attrs: Attrs, *_: Any) -> Interval:
    return float(attrs["value"]), float(attrs["value"])


def _leaf(name: str, traits: str, **own: Any) -> Operator:
    given = {
        "infer": _declared, "acts_on": {}, "linear_in": (), "exact": always, "by_place": False, "rounded": never,
        "tame": tame_as_all, "work": "cheap", "traffic": nothing_moved, "follows_layout": False,
        "defaults": no_attributes, "variants": (), "samples": (), "looks_up": no_indices,
    }  # fmt: skip
    return declare(name, None if name == "fx" else 0, traits, **given | own)


OPERATORS = [
    # A value that the graph is given, or a term of constants alone.
    _leaf("input", "joins", interval=_of_input),
    # Of shape (), with the attribute value.
    _leaf("scalar", "factory", interval=_number),
    # The kernel of the identity convolution.
    _leaf("dirac", "factory", interval=lambda *_: (0.0, 1.0)),
    # An operator as captured.
    _leaf("fx", "", interval=not_known, exact=never, tame=never, traffic=streamed),
]
