"""Patterns: the sides of laws, written as Python calls.

``matmul(y := matmul(a, b), c)`` is a matmul whose left operand is a matmul; ``y`` names the inner one. A number matches
the scalar of that value. An upper-case operator is a metavariable for places of operators: ``L(x)`` matches any of
these operators with x at the place; their other operands are variables of their own (``L_1``, …).
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch_eqsat.errors import LawError
from torch_eqsat.ir.operators import OPERATORS

ROOT = "root"
"""The name of the whole match in a law whose pattern gives it none."""


class Place(NamedTuple):
    """An operator of ``arity`` operands, seen as a function of the one at ``position``."""

    op: str
    arity: int
    position: int = 0


def pointwise(*arities: int, trait: str = "pointwise", but: Sequence[str] = ()) -> list[Place]:
    """Places for a metavariable: the elementwise operators with one of ``arities`` operands and a ``trait``."""
    return [
        Place(operator.name, n)
        for operator in OPERATORS.values()
        if {"pointwise", trait} <= operator.traits and operator.name not in but
        for n in arities
        if operator.arity in (None, n)
    ]


@dataclass(frozen=True, slots=True)
class Variable:
    """Any e-class; the same name stands for the same e-class."""

    name: str


@dataclass(frozen=True, slots=True)
class Application:
    """An e-node of operator ``op``. ``name`` is its name in the law, "" if it has none. ``value`` is that of a scalar
    if the pattern gives one."""

    op: str
    children: tuple[Pattern, ...]
    name: str = ""
    value: float | None = None

    @property
    def constructor(self) -> tuple[str, int]:
        """The operator and its number of operands."""
        return self.op, len(self.children)


Pattern = Variable | Application


def parse_pattern(text: str, substitution: Mapping[str, Place] | None = None) -> Application:
    """The pattern that ``text`` denotes; ``substitution`` replaces operator metavariables such as ``F``.

    Raises LawError if the text is not a pattern.

    >>> parse_pattern("add(x, y)").constructor
    ('add', 2)
    >>> parse_pattern("add(L(x), y)", {"L": Place("matmul", 2, 1)}).children[0]
    Application(op='matmul', children=(Variable(name='L_0'), Variable(name='x')), name='', value=None)
    """
    pattern = parse_side(text, substitution)
    if not isinstance(pattern, Application):
        raise LawError(f"pattern {text!r} is a bare variable; it would match everything")
    return pattern


def parse_side(text: str, substitution: Mapping[str, Place] | None = None) -> Pattern:
    """As :func:`parse_pattern`, but a bare variable is allowed: the right side of an equation."""
    return _pattern(ast.parse(f"({text})", mode="eval").body, substitution or {}, text)


def _pattern(tree: ast.expr, substitution: Mapping[str, Place], text: str) -> Pattern:
    match tree:
        case ast.NamedExpr(target=ast.Name(id=name), value=value):
            inner = _pattern(value, substitution, text)
            if isinstance(inner, Application):
                return replace(inner, name=name)
        case ast.Name(id=name):
            return Variable(name)
        case ast.Constant(value=int() | float() as value):
            return Application("scalar", (), value=float(value))
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return Application("scalar", (), value=-float(value))
        case ast.Call(func=ast.Name(id=op), args=args, keywords=[]):
            children = tuple(_pattern(arg, substitution, text) for arg in args)
            return _application(op, children, substitution, text)
    raise LawError(f"cannot read {ast.unparse(tree)!r} in pattern {text!r}")


def _application(op: str, children: tuple[Pattern, ...], substitution: Mapping[str, Place], text: str) -> Application:
    place = substitution.get(op)
    if place is not None and len(children) == 1 and place.arity > 1:
        others: list[Pattern] = [Variable(f"{op}_{i}") for i in range(place.arity)]
        children = (*others[: place.position], children[0], *others[place.position + 1 :])
    name = place.op if place is not None else op
    operator = OPERATORS.get(name)
    if operator is None:
        raise LawError(f"unknown operator {name!r} in pattern {text!r}; known: {', '.join(sorted(OPERATORS))}")
    if operator.arity not in (None, len(children)):
        raise LawError(f"{name} takes {operator.arity} operands, pattern {text!r} gives {len(children)}")
    return Application(name, children)


def variables(pattern: Pattern) -> list[str]:
    """The names that a match binds, in order of appearance, each once."""
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
