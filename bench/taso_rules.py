"""The rewrite rules of TASO as TENSAT states them: read, given sizes, and made into terms of the tensor language.

A rule is text such as ``(ewadd (matmul 0 ?a ?c) (matmul 0 ?b ?c))=>(matmul 0 (ewadd ?a ?b) ?c)``; a multi-pattern rule
has two such lines. Rules give no sizes: :func:`assignments` finds those for which both sides are well typed. An
activation inside a matmul or convolution is that function of it, and a convolution has the padding that keeps the size
of the image, so kernels have odd sizes; its groups follow from the channels of image and weight.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.rules.builder import Builder, Handle

ACTIVATIONS = ("", "sigmoid", "relu", "tanh")
NUMBERS = {"matmul": 1, "conv2d": 4, "concat": 2, "split": 1}  # how many numbers precede the operands
OPERANDS = {
    "matmul": 2, "conv2d": 2, "concat": 2, "split": 1, "split_0": 1, "split_1": 1, "ewadd": 2, "ewmul": 2, "relu": 1,
}  # fmt: skip
SIZES, KERNELS = (2, 3, 4, 1), (3,)  # tried for a size that the other sizes do not decide
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Expression:
    """An operator with its numbers and operands, or a variable ``name``."""

    op: str
    numbers: tuple[int, ...] = ()
    operands: tuple[Expression, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """``lefts[i]`` is to equal ``rights[i]``; ``name`` is the file's kind and the number of the rule in it, from 1."""

    name: str
    lefts: tuple[Expression, ...]
    rights: tuple[Expression, ...]
    text: str


def parse(text: str) -> Expression:
    """The expression that ``text`` denotes. Raises ValueError, naming what cannot be read.

    >>> parse("(relu ?x)").op
    'relu'
    """
    tokens = re.findall(r"[()]|[^\s()]+", text)
    expression, end = _parse(tokens, 0, text)
    if end != len(tokens):
        raise ValueError(f"text after the end of the expression: {text!r}")
    return expression


def _parse(tokens: list[str], at: int, text: str) -> tuple[Expression, int]:
    if tokens[at].startswith("?"):
        return Expression("", name=tokens[at][1:]), at + 1
    op = tokens[at + 1] if tokens[at] == "(" else tokens[at]
    if op not in OPERANDS:
        raise ValueError(f"unknown operator {op!r} in {text!r}; known: {', '.join(OPERANDS)}")
    count = NUMBERS.get(op, 0)
    numbers = tuple(int(token) for token in tokens[at + 2 : at + 2 + count])
    at += 2 + count
    operands = []
    while tokens[at] != ")":
        operand, at = _parse(tokens, at, text)
        operands.append(operand)
    if len(operands) != OPERANDS[op]:
        raise ValueError(f"{op} takes {OPERANDS[op]} operands, {text!r} gives {len(operands)}")
    return Expression(op, numbers, tuple(operands)), at + 1


def read_rules(folder: Path) -> list[Rule]:
    """The single-pattern rules, then the multi-pattern rules, of ``folder``."""
    rules = []
    for kind, file, lines_each in (("single", "converted.txt", 1), ("multi", "converted_multi.txt", 2)):
        lines = [line for line in (folder / file).read_text(encoding="utf-8").splitlines() if line.strip()]
        for number, start in enumerate(range(0, len(lines), lines_each), 1):
            texts = lines[start : start + lines_each]
            pairs = [[parse(side) for side in text.split("=>")] for text in texts]
            rules.append(Rule(f"{kind} {number}", *zip(*pairs, strict=True), "  &  ".join(texts)))
    return rules


# Sizes

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
        for axis, (a, b) in enumerate(zip(shapes[0], shapes[-1], strict=True)):
            if axis != joined:
                self.equate(a, b)
        return tuple(
            tuple(sorted(size + shapes[1][axis])) if axis == joined else size for axis, size in enumerate(shapes[0])
        )

    def _part(self, split: Expression, whole: tuple[Size, ...], second: bool) -> tuple[Size, ...]:
        inside = _nearest_concat(split)
        first = self.shape(inside.operands[0])[inside.numbers[0]]
        axis = split.numbers[0]
        rest = tuple(sorted((Counter(whole[axis]) - Counter(first)).elements()))
        return (*whole[:axis], rest if second else first, *whole[axis + 1 :])

    def holds(self, sizes: Mapping[str, int]) -> bool:
        def total(size: Size) -> int:
            return sum(sizes[self.find(symbol)] for symbol in size)

        return all(total(a) == total(b) for a, b in self.sums) and all(
            total(channels) % total(per_group) == 0 and total(outputs) % (total(channels) // total(per_group)) == 0
            for channels, per_group, outputs in self.convolutions
        )


def _nearest_concat(e: Expression) -> Expression:
    """The concatenation that a split undoes: TASO keeps its place with the tensor, the most recent one first."""
    level = [e]
    while level:
        for item in level:
            if item.op == "concat":
                return item
        level = [operand for item in level for operand in item.operands]
    raise ValueError("a split without a concatenation inside")


def variables(e: Expression) -> Iterator[str]:
    """Names of variables in ``e``, in order of appearance, with repetitions."""
    if not e.op:
        yield e.name
    for operand in e.operands:
        yield from variables(operand)


def _rank(e: Expression, ranks: Mapping[str, int]) -> int | None:
    if e.op in ("matmul", "conv2d", "concat"):
        return {"matmul": 2, "conv2d": 4}.get(e.op) or e.numbers[1]
    if not e.op:
        return ranks.get(e.name)
    return next((rank for operand in e.operands if (rank := _rank(operand, ranks))), None)


def _assign_ranks(e: Expression, wanted: int | None, ranks: dict[str, int]) -> None:
    """Ranks of the variables in ``e``, when it has rank ``wanted`` (None: what its operators say)."""
    rank = _rank(e, ranks) or wanted
    if not e.op and rank:
        if ranks.setdefault(e.name, rank) != rank:
            raise TypeMismatchError(f"?{e.name} is used with ranks {ranks[e.name]} and {rank}")
    for operand in e.operands:
        _assign_ranks(operand, rank, ranks)


def constraints(rule: Rule) -> _Constraints:
    """What the sizes of ``rule``'s variables have to satisfy. Raises TypeMismatchError when ranks do not fit.

    A variable whose rank no operator decides is a matrix.
    """
    found = _Constraints()
    sides = [*rule.lefts, *rule.rights]
    for wanted in (None, None, 2):
        for side in sides:
            _assign_ranks(side, wanted, found.ranks)
    for left, right in zip(rule.lefts, rule.rights, strict=True):
        for a, b in zip(found.shape(left), found.shape(right), strict=True):
            found.equate(a, b)
    for _ in range(len(found.sums) + 1):  # sums may have become simpler by what was equated after them
        pending, found.sums = found.sums, []
        for a, b in pending:
            found.equate(a, b)
    return found


def assignments(rule: Rule) -> list[Shapes]:
    """Shapes of ``rule``'s variables for which both sides are well typed, the most general first: fewest groups, then
    fewest ones, then most different sizes. Sizes that are bound by groups or sums take all values of ``SIZES``."""
    needs = constraints(rule)
    symbols = dict.fromkeys(
        needs.find(f"{name}.{axis}")
        for side in rule.lefts + rule.rights
        for name in variables(side)
        for axis in range(needs.ranks[name])
    )
    kernels = {needs.find(symbol) for size in needs.kernels for symbol in size}
    bound = {needs.find(s) for pair in needs.sums for size in pair for s in size}
    bound |= {needs.find(s) for sizes in needs.convolutions for size in sizes for s in size}
    free = itertools.cycle((2, 3, 4))
    fixed = {s: KERNELS[0] if s in kernels else next(free) for s in symbols if s in kernels or s not in bound}
    varied = [s for s in symbols if s not in fixed]
    found = []
    for values in itertools.product(SIZES, repeat=len(varied)):
        sizes = {**fixed, **dict(zip(varied, values, strict=True))}
        if needs.holds(sizes):
            total = {name: tuple(sizes[needs.find(f"{name}.{i}")] for i in range(r)) for name, r in needs.ranks.items()}
            groups = sum(
                sum(sizes[needs.find(s)] for s in c) // sum(sizes[needs.find(s)] for s in p)
                for c, p, _ in needs.convolutions
            )
            found.append((groups, values.count(1), -len(set(values)), total))
    return [shapes for *_, shapes in sorted(found, key=lambda row: row[:3])]


# Terms


def build(e: Expression, t: Builder, inputs: Mapping[str, Handle]) -> Handle:
    """``e`` as a term, with ``inputs`` for its variables. Raises TypeMismatchError when the shapes do not fit."""
    if not e.op:
        return inputs[e.name]
    if e.op in ("split_0", "split_1"):
        return _build_part(e, t, inputs)
    operands = [build(operand, t, inputs) for operand in e.operands]
    if e.op == "ewadd":
        return t.add(*operands)
    if e.op == "ewmul":
        return t.mul(*operands)
    if e.op == "relu":
        return t.apply("relu", operands)
    if e.op == "concat":
        return t.cat(operands, e.numbers[0])
    result = t.matmul(*operands) if e.op == "matmul" else _convolution(t, e.numbers, *operands)
    activation = ACTIVATIONS[e.numbers[-1]]
    return t.apply(activation, [result]) if activation else result


def _convolution(t: Builder, numbers: tuple[int, ...], x: Handle, w: Handle) -> Handle:
    *stride, valid, _ = numbers
    padding = (0, 0) if valid else tuple(k // 2 for k in w.shape[2:])
    if x.shape[1] % w.shape[1]:
        raise TypeMismatchError(f"channels of {x.shape} and {w.shape}")
    groups = x.shape[1] // w.shape[1]
    return t.apply("conv", (x, w), stride=tuple(stride), padding=padding, dilation=(1, 1), groups=groups)


def _build_part(e: Expression, t: Builder, inputs: Mapping[str, Handle]) -> Handle:
    (split,) = e.operands
    axis, inside = split.numbers[0], _nearest_concat(split)
    whole = build(split.operands[0], t, inputs)
    place = build(inside.operands[0], t, inputs).shape[inside.numbers[0]]
    start, stop = (0, place) if e.op == "split_0" else (place, whole.shape[axis])
    return t.slice(whole, axis, start, stop)


def elements(shapes: Shapes) -> int:
    """Elements of all variables together."""
    return sum(math.prod(shape) for shape in shapes.values())
