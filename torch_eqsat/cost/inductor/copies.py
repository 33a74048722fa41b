"""Views that are copies.

A reshape of a permuted value has no strides: its readers compute with indices, or it is written first. When the shuffle
after a convolution that replaced a transposed one was priced as free, the program ran 0.7 times as fast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch_eqsat.ir.term import Node, TermGraph, meant

VECTOR = 8
"""Elements that lie side by side, from which on they are moved together (one register of AVX2)."""


def shuffled_views(graph: TermGraph) -> tuple[frozenset[int], frozenset[int]]:
    """The ``view`` terms that are copied, of vectors and of single elements, and the ``matmul`` terms whose rows are
    copied into a matrix."""
    meaning = dict(graph.equal)
    vectors: set[int] = set()
    elements: set[int] = set()
    for term, node in enumerate(graph.nodes):
        target = _reshaped_to(graph, node)
        if target is None:
            continue
        operand = meant(meaning, node.children[0])
        run = copied_run(*_lying(graph, meaning, operand), target)
        if run:
            (vectors if run >= VECTOR else elements).add(term)
    return frozenset(vectors), frozenset(elements)


def _reshaped_to(graph: TermGraph, node: Node) -> Sequence[int] | None:
    """The shape to which ``node`` reshapes its first operand: a view, or a product of rows of higher rank."""
    if node.op == "view":
        shape: Sequence[int] = node["shape"]
        return shape
    if node.op != "matmul":
        return None
    rows, matrix = (graph.types[child] for child in node.children)
    assert rows is not None and matrix is not None
    return (math.prod(rows.shape[:-1]), rows.shape[-1]) if rows.rank > matrix.rank else None


def copied_run(shape: Sequence[int], strides: Sequence[int], target: Sequence[int]) -> int:
    """How many elements lie side by side in what is reshaped to ``target`` by a copy; 0 where no copy is needed."""
    if viewed(shape, strides, target) is not None:
        return 0
    run = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != run:
            break
        run *= size
    return run


def _lying(graph: TermGraph, meaning: Mapping[int, int], term: int) -> tuple[Sequence[int], list[int]]:
    """The shape of ``term`` and its strides; what is neither a view nor a permutation lies contiguous."""
    node, type_ = graph.nodes[term], graph.types[term]
    assert type_ is not None
    if node.op not in ("view", "permute"):
        return type_.shape, contiguous(type_.shape)
    shape, strides = _lying(graph, meaning, meant(meaning, node.children[0]))
    if node.op == "permute":
        return type_.shape, [strides[axis] for axis in node["dims"]]
    return type_.shape, viewed(shape, strides, type_.shape) or contiguous(type_.shape)


def contiguous(shape: Sequence[int]) -> list[int]:
    """The strides of a contiguous tensor."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return strides


def viewed(shape: Sequence[int], strides: Sequence[int], target: Sequence[int]) -> list[int] | None:
    """The strides of a reshape without a copy, if there is one: axes that lie as one are cut anew (as in
    aten/src/ATen/TensorUtils.cpp, computeStride)."""
    runs: list[tuple[int, int]] = []  # elements that lie evenly, and their stride
    for size, stride in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if runs and runs[-1][1] == size * stride:
            runs[-1] = runs[-1][0] * size, stride
        else:
            runs.append((size, stride))
    found: list[int] = []
    left, stride = runs.pop() if runs else (1, 1)
    for size in reversed(target):
        while left == 1 and size > 1 and runs:
            left, stride = runs.pop()
        if left % size:
            return None
        found.append(stride)
        left, stride = left // size, stride * size
    return found[::-1] if left == 1 and not runs else None
