"""Example terms, written as Python calls; laws are shown and tested on them.

A list of sizes is a new input tensor, and keywords are attributes: ``permute(x := [2, 3], dims=[1, 0])``. A named term
may be used again, and so may its shape: ``matmul(x := [2, 3], [x.shape[1], 4])``. Several terms in parentheses denote
the last one. A number is a scalar; ``integers(2, 3)`` is a tensor of small indices, ``integers(4, repeats=2)`` is 0, 0,
1, 1, ``booleans(2, 3)`` a mask, ``weights(2, 3)`` a constant and ``halves(2, 3)`` a tensor of bfloat16.
"""

from __future__ import annotations

import ast
from typing import Any

from torch_eqsat.errors import LawError
from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.ir.operators import OPERATORS

# Kinds of inputs: the dtype and the known facts.
_INPUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "integers": ("int64", {}),
    "booleans": ("bool", {}),
    "weights": ("float32", {"weight": 1}),
    "halves": ("bfloat16", {}),
}


def build_example(example: str | ast.expr, builder: Builder) -> Handle:
    """The term that an example (text or syntax tree) denotes, made with ``builder``.

    Raises LawError if it is not an example, TypeMismatchError if operands do not fit.
    """
    tree = parse_example(example) if isinstance(example, str) else example
    return _Reader(builder).read(tree)


def parse_example(text: str) -> ast.expr:
    """The syntax tree of an example."""
    return ast.parse(f"({text})", mode="eval").body


class _Reader:
    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.names: dict[str, Handle] = {}

    def read(self, tree: ast.expr) -> Handle:
        match tree:
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                self.names[name] = self.read(value)
                return self.names[name]
            case ast.Name(id=name) if name in self.names:
                return self.names[name]
            case ast.Tuple(elts=terms) if terms:
                return [self.read(term) for term in terms][-1]
            case ast.List():
                return self.builder.input(self._value(tree))
            case ast.Constant(value=float() | int() as value):
                return self.builder.scalar(float(value))
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=float() | int() as value)):
                return self.builder.scalar(-float(value))
            case ast.Call(func=ast.Name(id=kind), args=args, keywords=keywords) if kind in _INPUTS:
                dtype, facts = _INPUTS[kind]
                facts = {**facts, **self._attributes(keywords)}
                return self.builder.input([self._value(arg) for arg in args], dtype, **facts)
            case ast.Call(func=ast.Name(id=op), args=args, keywords=keywords):
                return self._apply(op, [self.read(arg) for arg in args], self._attributes(keywords))
        raise LawError(f"cannot read {ast.unparse(tree)!r} in an example")

    def _attributes(self, keywords: list[ast.keyword]) -> dict[str, Any]:
        return {k.arg: self._value(k.value) for k in keywords if k.arg}

    def _value(self, tree: ast.expr) -> Any:
        """A literal, or an expression over the shapes of named terms."""
        return eval(compile(ast.Expression(tree), "<example>", "eval"), {"range": range}, dict(self.names))

    def _apply(self, op: str, children: list[Handle], attrs: dict[str, Any]) -> Handle:
        defaults = OPERATORS[op].defaults([x.type for x in children]) if op in OPERATORS else {}
        return self.builder.apply(op, children, **{**defaults, **attrs})
