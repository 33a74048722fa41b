"""The rewrite rules of TASO as TENSAT states them, read and made into terms of the tensor language.

A rule is text such as ``(ewadd (matmul 0 ?a ?c) (matmul 0 ?b ?c))=>(matmul 0 (ewadd ?a ?b) ?c)``; a multi-pattern rule
has two such lines. Rules give no sizes (bench.laws.taso_shapes finds some). An activation inside a matmul or
convolution is that function of it, and a convolution has the padding that keeps the size of the image, so kernels have
odd sizes; its groups follow from the channels of image and weight.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.ir.builder import Builder, Handle

ACTIVATIONS = ("", "sigmoid", "relu", "tanh")
NUMBERS = {"matmul": 1, "conv2d": 4, "concat": 2, "split": 1}  # how many numbers precede the operands
OPERANDS = {
    "matmul": 2, "conv2d": 2, "concat": 2, "split": 1, "split_0": 1, "split_1": 1, "ewadd": 2, "ewmul": 2, "relu": 1,
}  # fmt: skip
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
    try:
        expression, end = _parse(tokens, 0, text)
    except IndexError:
        raise ValueError(f"text ends inside an expression: {text!r}") from None
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


def read_rule(name: str, texts: Sequence[str]) -> Rule:
    """The rule of the lines ``texts``, each ``left=>right``."""
    pairs = [text.split("=>") for text in texts]
    lefts, rights = (tuple(parse(pair[side]) for pair in pairs) for side in (0, 1))
    return Rule(name, lefts, rights, "  &  ".join(texts))


def read_rules(folder: Path) -> list[Rule]:
    """The single-pattern rules, then the multi-pattern rules, of ``folder``."""
    rules = []
    for kind, file, lines_each in (("single", "converted.txt", 1), ("multi", "converted_multi.txt", 2)):
        lines = [line for line in (folder / file).read_text(encoding="utf-8").splitlines() if line.strip()]
        for number, start in enumerate(range(0, len(lines), lines_each), 1):
            texts = lines[start : start + lines_each]
            rules.append(read_rule(f"{kind} {number}", texts))
    return rules


def nearest_concat(e: Expression) -> Expression:
    """The concatenation that a split undoes: TASO keeps its place with the tensor, the most recent one first."""
    level = [e]
    while level:
        for item in level:
            if item.op == "concat":
                return item
        level = [operand for item in level for operand in item.operands]
    raise ValueError("a split without a concatenation inside")


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
    axis, inside = split.numbers[0], nearest_concat(split)
    whole = build(split.operands[0], t, inputs)
    place = build(inside.operands[0], t, inputs).shape[inside.numbers[0]]
    start, stop = (0, place) if e.op == "split_0" else (place, whole.shape[axis])
    return t.slice(whole, axis, start, stop)
