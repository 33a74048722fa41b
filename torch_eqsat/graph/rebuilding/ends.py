"""Bounds of slices that a law made for one size, counted from the end of the axis."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch.fx import Node as FxNode

aten = torch.ops.aten
SMALL = 8  # smaller numbers are axes, steps and the like
_NEAR = 2  # places, or groups of them, before the end of an axis


def from_the_end(node: FxNode, primes: Collection[int], known: Collection[int]) -> Any:
    """The arguments of ``node``, a slice or a selection along an axis whose size is made of ``primes``, that stand for
    symbols: bounds near the end are counted from there. Numbers that are ``known`` mean something else."""
    x, dim, *bounds = node.args
    size = x.meta["val"].shape[dim]
    # As many places as there are for each row: queries, keys and values of one row lie beside each other.
    group = next((size // prime for prime in primes if size % prime == 0), 1)

    def is_near(bound: Any, near: int) -> bool:
        return type(bound) is int and SMALL < bound < size and bound >= size - near

    first = bounds[0]
    if is_near(first, _NEAR) or (is_near(first, _NEAR * group) and first not in known):
        bounds[0] -= size
    if node.target is aten.slice.Tensor and len(bounds) > 1:
        if bounds[1] == size:
            bounds[1] = 2**63 - 1
        elif is_near(bounds[1], _NEAR * group) and bounds[1] not in known:
            bounds[1] -= size
    return (x, dim, *bounds)
