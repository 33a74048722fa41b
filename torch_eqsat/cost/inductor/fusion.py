"""What Inductor computes within a frozen convolution on a CPU, and what therefore costs nothing.

Under freezing, factors and addends of constants that follow a convolution are folded into its weight and bias
(torch/_inductor/fx_passes/binary_folding.py), and oneDNN then adds one tensor and applies one function before it stores
(mkldnn_fusion.py). Priced as if they were work, the batch norms of mobilenet_v2 promised 17 % to a program that
compiles to the same calls.

A value that several terms use is stored, and absorbs nothing; `cost/terms.py` sees that once a program is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from torch_eqsat.ir.term import Node
from torch_eqsat.ir.types import TensorType


class Stage(IntEnum):
    """How far a value is from the convolution that it ends in; a higher one can still take more in."""

    NONE = 0  # it does not end in one
    ENDED = 1  # a function was applied
    BOUNDED = 2  # of a clamp, one bound was: it is written as a minimum of a maximum
    ADDED = 3  # a tensor was added
    FOLDED = 4  # the convolution, and factors and addends that are constant


_FUNCTIONS = frozenset({"relu", "clamp", "sigmoid", "tanh"})
ABSORBABLE = _FUNCTIONS | {"add", "mul", "div", "convert"}
"""Operators that a convolution may take in."""
_DTYPES = frozenset({"float32", "bfloat16", "float16"})


def stage_of(
    node: Node, types: Sequence[TensorType | None], constants: Sequence[bool], stages: Sequence[Stage]
) -> Stage:
    """The stage of the value of ``node``, given the types and stages of its operands and which of them are constant. An
    absorbable node that has one costs nothing."""
    if node.op == "conv":
        return Stage.FOLDED if is_packed(node, types[0], constants) else Stage.NONE
    if node.op in _FUNCTIONS:
        return _function_stage(node, stages[0])
    if node.op == "convert":  # a half-precision batch norm is computed in single precision, and folded all the same
        return stages[0] if stages[0] is Stage.FOLDED else Stage.NONE
    if node.op not in ABSORBABLE or Stage.FOLDED not in stages:
        return Stage.NONE
    first = stages[0] is Stage.FOLDED
    own, other = (types[0], types[1]) if first else (types[1], types[0])
    assert own is not None
    if other is None:
        return Stage.NONE
    if constants[1 if first else 0]:
        foldable = _of_channels(other, own) and (first or node.op != "div")
        return Stage.FOLDED if foldable else Stage.NONE
    return Stage.ADDED if node.op == "add" and own.shape == other.shape else Stage.NONE


def is_packed(node: Node, image: TensorType | None, constants: Sequence[bool]) -> bool:
    """Whether ``node`` is a convolution whose weight alone is known, so that Inductor hands it to oneDNN, packed;
    ``image`` is the type of what it is applied to, ``constants`` says which operands are constant."""
    return node.op == "conv" and constants[1] and not constants[0] and image is not None and image.dtype in _DTYPES


def _function_stage(node: Node, before: Stage) -> Stage:
    if node.op == "clamp" and before in (Stage.FOLDED, Stage.BOUNDED):
        return Stage.BOUNDED if None in (node["low"], node["high"]) else Stage.ENDED
    # After a sum only relu is matched.
    takes = before is Stage.FOLDED or (before is Stage.ADDED and node.op == "relu")
    return Stage.ENDED if takes else Stage.NONE


def _of_channels(constant: TensorType, result: TensorType) -> bool:
    """Whether a constant varies along the channels of ``result`` alone."""
    shape = (1,) * (result.rank - constant.rank) + constant.shape
    return all(size == 1 for axis, size in enumerate(shape) if axis != 1)
