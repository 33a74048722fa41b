"""Sizes for TASO's rules, which give none: shapes of the variables for which both sides are well typed."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.laws.taso_rules import Expression, Rule, Shapes, nearest_concat
from torch_eqsat.errors import TypeMismatchError

SIZES, KERNEL = (2, 3, 4, 1), 3  # what sizes bound by groups or sums may be; the size of kernels

Size = tuple[str, ...]
"""A size in symbols: their sum. Sorted."""


@dataclass
class _Constraints:
    """What has to hold between the sizes of a rule's variables for both sides to be well typed."""

    ranks: dict[str, int] = field(default_factory=dict)
    merged: dict[str, str] = field(default_factory=dict)
    sums: list[tuple[Size, Size]] = field(default_factory=list)
    convolutions: list[tuple[Size, Size, Size]] = field(default_factory=list)  # channels, channels per group, outputs
    kernels: list[Size] = field(default_factory=list)

    def find(self, symbol: str) -> str:
        while symbol in self.merged:
            symbol = self.merged[symbol]
        return symbol

    def equate_shapes(self, a: Sequence[Size], b: Sequence[Size], joined: int | None = None) -> None:
        """The sizes of ``a`` and ``b`` are equal, but for axis ``joined``."""
        if len(a) != len(b):
            raise TypeMismatchError(f"ranks {len(a)} and {len(b)} where one rank is needed")
        for axis, (first, second) in enumerate(zip(a, b, strict=True)):
            if axis != joined:
                self.equate(first, second)

    def equate(self, a: Size, b: Size) -> None:
        left, right = (Counter(self.find(symbol) for symbol in size) for size in (a, b))
        first, second = sorted((left - right).elements()), sorted((right - left).elements())
        if len(first) == len(second) == 1:
            self.merged[first[0]] = second[0]
        elif first or second:
            self.sums.append((tuple(first), tuple(second)))

    def shape(self, e: Expression) -> tuple[Size, ...]:
        """The shape of ``e`` in symbols; notes what has to hold for it to be well typed."""
        if not e.op:
            return tuple((f"{e.name}.{axis}",) for axis in range(self.ranks[e.name]))
        shapes = [self.shape(operand) for operand in e.operands]
        if e.op in ("split_0", "split_1"):
            (split,) = e.operands
            return self._part(split, shapes[0], e.op == "split_1")
        if e.op == "conv2d":
            (n, channels, *image), (outputs, per_group, *kernel) = shapes
            self.convolutions.append((channels, per_group, outputs))
            self.kernels += kernel
            return (n, outputs, *image)
        if e.op == "matmul":
            self.equate(shapes[0][1], shapes[1][0])
            return (shapes[0][0], shapes[1][1])
        joined = e.numbers[0] if e.op == "concat" else None
        self.equate_shapes(shapes[0], shapes[-1], joined)
        return tuple(
            tuple(sorted(size + shapes[1][axis])) if axis == joined else size for axis, size in enumerate(shapes[0])
        )

    def _part(self, split: Expression, whole: tuple[Size, ...], second: bool) -> tuple[Size, ...]:
        inside = nearest_concat(split)
        first = self.shape(inside.operands[0])[inside.numbers[0]]
        axis = split.numbers[0]
        rest = tuple(sorted((Counter(whole[axis]) - Counter(first)).elements()))
        return (*whole[:axis], rest if second else first, *whole[axis + 1 :])

    def bound(self) -> set[str]:
        """The symbols that sums and groups relate. A convolution whose image has the channels of its kernel has one
        group whatever the sizes."""
        related = [size for pair in self.sums for size in pair]
        for channels, per_group, outputs in self.convolutions:
            if Counter(map(self.find, channels)) != Counter(map(self.find, per_group)):
                related += [channels, per_group, outputs]
        return {self.find(symbol) for size in related for symbol in size}

    def _total(self, size: Size, sizes: Mapping[str, int]) -> int:
        return sum(sizes[self.find(symbol)] for symbol in size)

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Whether ``sizes`` of symbols satisfy sums and groups."""
        if any(self._total(a, sizes) != self._total(b, sizes) for a, b in self.sums):
            return False
        for rows in self.convolutions:
            channels, per_group, outputs = (self._total(size, sizes) for size in rows)
            if channels % per_group or outputs % (channels // per_group):
                return False
        return True

    def groups(self, sizes: Mapping[str, int]) -> int:
        """The groups of all convolutions together."""
        return sum(self._total(c, sizes) // self._total(p, sizes) for c, p, _ in self.convolutions)


def _rank(e: Expression, ranks: Mapping[str, int]) -> int | None:
    if e.op in ("matmul", "conv2d", "concat"):
        return {"matmul": 2, "conv2d": 4}.get(e.op) or e.numbers[1]
    if not e.op:
        return ranks.get(e.name)
    return next((rank for operand in e.operands if (rank := _rank(operand, ranks))), None)


def _assign_ranks(e: Expression, wanted: int | None, ranks: dict[str, int]) -> None:
    """Ranks of the variables in ``e``, when it has rank ``wanted`` (None: what its operators say)."""
    if not e.op:
        if wanted and ranks.setdefault(e.name, wanted) != wanted:
            raise TypeMismatchError(f"?{e.name} is used with ranks {ranks[e.name]} and {wanted}")
        return
    rank = _rank(e, ranks) or wanted
    for operand in e.operands:
        _assign_ranks(operand, rank, ranks)


def constraints(rule: Rule) -> _Constraints:
    """What the sizes of ``rule``'s variables have to satisfy. Raises TypeMismatchError when ranks do not fit.

    A variable whose rank no operator decides is a matrix.
    """
    found = _Constraints()
    sides = [*rule.lefts, *rule.rights]
    for default in (None, None, 2):
        for side in sides:
            _assign_ranks(side, _rank(side, found.ranks) or default, found.ranks)
    for left, right in zip(rule.lefts, rule.rights, strict=True):
        found.equate_shapes(found.shape(left), found.shape(right))
    for _ in range(len(found.sums) + 1):  # sums may have become simpler by what was equated after them
        pending, found.sums = found.sums, []
        for a, b in pending:
            found.equate(a, b)
    return found


def assignments(rule: Rule) -> list[Shapes]:
    """Shapes of ``rule``'s variables for which both sides are well typed, the most general first: fewest groups, then
    fewest ones, then most different sizes. Sizes that are bound by groups or sums take all values of ``SIZES``."""
    needs = constraints(rule)
    axes = [(name, axis) for name, rank in needs.ranks.items() for axis in range(rank)]
    symbols = dict.fromkeys(needs.find(f"{name}.{axis}") for name, axis in axes)
    kernels = {needs.find(symbol) for size in needs.kernels for symbol in size}
    bound = needs.bound()
    free = itertools.cycle((2, 3, 4))
    fixed = {s: KERNEL if s in kernels else next(free) for s in symbols if s in kernels or s not in bound}
    varied = [s for s in symbols if s not in fixed]
    found: list[tuple[tuple[int, int, int], Shapes]] = []
    for values in itertools.product(SIZES, repeat=len(varied)):
        sizes = {**fixed, **dict(zip(varied, values, strict=True))}
        if needs.holds(sizes):
            shapes: dict[str, tuple[int, ...]] = dict.fromkeys(needs.ranks, ())
            for name, axis in axes:
                shapes[name] += (sizes[needs.find(f"{name}.{axis}")],)
            found.append(((needs.groups(sizes), values.count(1), -len(set(values))), shapes))
    return [shapes for _, shapes in sorted(found, key=lambda row: row[0])]
