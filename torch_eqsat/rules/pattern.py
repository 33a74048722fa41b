"""Patterns: the left sides of laws, and the example terms that laws are tested on, both written as Python calls.

``matmul(y := matmul(a, b), c)`` is a matmul whose left operand is a matmul; ``y`` names the inner one. In an example,
a list of sizes is a fresh input tensor and keywords are attributes: ``permute(x := [2, 3], dims=[1, 0])``;
``integers(2, 3)`` is a tensor of small indices, ``integers(4, repeats=2)`` is 0, 0, 1, 1.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch_eqsat.errors import RuleError
from torch_eqsat.ir.operators import OPERATORS


@dataclass(frozen=True, slots=True)
class Variable:
    """Any e-class; the same name stands for the same e-class."""

    name: str


@dataclass(frozen=True, slots=True)
class Application:
    """An e-node of operator ``op``; ``name`` is what the law calls it ("" if it doesn't)."""

    op: str
    children: tuple[Pattern, ...]
    name: str = ""

    @property
    def constructor(self) -> tuple[str, int]:
        return self.op, len(self.children)


Pattern = Variable | Application


def parse_pattern(text: str, substitution: dict[str, tuple[str, int]] | None = None) -> Application:
    """The pattern that ``text`` denotes; ``substitution`` replaces operator metavariables such as ``F``.

    Raises RuleError for text that is no pattern.

    >>> parse_pattern("add(x, y)").constructor
    ('add', 2)
    """
    tree = ast.parse(f"({text})", mode="eval").body
    pattern = _pattern(tree, substitution or {}, text)
    if not isinstance(pattern, Application):
        raise RuleError(f"pattern {text!r} is a bare variable; it would match everything")
    return pattern


def _pattern(tree: ast.expr, substitution: dict[str, tuple[str, int]], text: str) -> Pattern:
    match tree:
        case ast.NamedExpr(target=ast.Name(id=name), value=value):
            inner = _pattern(value, substitution, text)
            if isinstance(inner, Application):
                return replace(inner, name=name)
        case ast.Name(id=name):
            return Variable(name)
        case ast.Call(func=ast.Name(id=op), args=args, keywords=[]):
            op = substitution.get(op, (op, 0))[0]
            operator = OPERATORS.get(op)
            if operator is None:
                raise RuleError(f"unknown operator {op!r} in pattern {text!r}; known: {', '.join(sorted(OPERATORS))}")
            if operator.arity not in (None, len(args)):
                raise RuleError(f"{op} takes {operator.arity} operands, pattern {text!r} gives {len(args)}")
            return Application(op, tuple(_pattern(arg, substitution, text) for arg in args))
    raise RuleError(f"cannot read {ast.unparse(tree)!r} in pattern {text!r}")


def variables(pattern: Pattern) -> list[str]:
    """Names that a match binds, in order of appearance, each once."""
    if isinstance(pattern, Variable):
        return [pattern.name]
    names = [pattern.name] if pattern.name else []
    for child in pattern.children:
        names += [name for name in variables(child) if name not in names]
    return names


def applications(pattern: Pattern) -> Iterator[Application]:
    """All operator applications in ``pattern``, the root first."""
    if isinstance(pattern, Application):
        yield pattern
        for child in pattern.children:
            yield from applications(child)


def commuted(pattern: Pattern) -> list[Pattern]:
    """``pattern`` with the operands of commutative operators in every order, without alpha-equal duplicates."""
    if isinstance(pattern, Variable):
        return [pattern]
    variants = []
    for children in itertools.product(*(commuted(child) for child in pattern.children)):
        orders = [children]
        if "commutative" in OPERATORS[pattern.op].traits:
            orders.append(tuple(reversed(children)))
        variants += [replace(pattern, children=order) for order in orders]
    return list(dict.fromkeys(variants))


def build_example(text: str, builder: Any) -> Any:
    """The term that example ``text`` denotes, made with ``builder`` (a torch_eqsat.rules.builder.Builder)."""
    names: dict[str, Any] = {}

    def build(tree: ast.expr) -> Any:
        match tree:
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                names[name] = build(value)
                return names[name]
            case ast.Name(id=name):
                return names[name]
            case ast.List():
                return builder.input(ast.literal_eval(tree))
            case ast.Constant(value=value):
                return builder.scalar(value)
            case ast.Call(func=ast.Name(id="integers"), args=args, keywords=keywords):
                known = {k.arg: ast.literal_eval(k.value) for k in keywords if k.arg}
                return builder.input([ast.literal_eval(arg) for arg in args], "int64", **known)
            case ast.Call(func=ast.Name(id=op), args=args, keywords=keywords):
                attrs = {k.arg: ast.literal_eval(k.value) for k in keywords if k.arg}
                return builder.example(op, [build(arg) for arg in args], attrs)
        raise RuleError(f"cannot read {ast.unparse(tree)!r} in example {text!r}")

    return build(ast.parse(f"({text})", mode="eval").body)
