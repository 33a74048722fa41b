"""Variants of example terms with other sizes, ranks and attributes, many of them at the border of a guard."""

from __future__ import annotations

import ast
import random
from typing import Any

from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.term import FACTS
from torch_eqsat.laws.example import parse_example

SIZES = (1, 1, 2, 2, 3, 4, 6)
NUMBERS = (0.5, -1.0, 0.0, 1.0, 2.0, 3.0)
ODDLY = (0.0, 0.0, 0.1, 0.25)
"""How often a size differs from its equals, a rank or an attribute changes; one of these is drawn for each variant."""
KEPT = (0.3, 0.8)
"""Probabilities that a size stays the same, drawn likewise; attributes such as the stop of a slice fit few other
sizes."""


def perturbed(example: str, rng: random.Random) -> str:
    """``example`` with other sizes, where equal sizes mostly stay equal. The result need not be a term."""
    return ast.unparse(_Perturbation(rng).visit(parse_example(example)))


class _Perturbation(ast.NodeTransformer):
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.oddly, self.kept = rng.choice(ODDLY), rng.choice(KEPT)
        self.sizes: dict[int, int] = {}

    def _rarely(self) -> bool:
        return self.rng.random() < self.oddly

    def _size(self, size: int) -> int:
        if self._rarely():
            return self.rng.choice(SIZES)
        return self.sizes.setdefault(size, size if self.rng.random() < self.kept else self.rng.choice(SIZES))

    def visit_List(self, node: ast.List) -> ast.List:
        """A variant of an input's shape; other lists occur only in attributes."""
        elements: list[ast.expr] = [self._element(e) for e in node.elts]
        if self._rarely():
            elements = elements[1:] if self.rng.random() < 0.5 else [ast.Constant(self.rng.choice((1, 2))), *elements]
        return ast.List(elements, ast.Load())

    def _element(self, node: ast.expr) -> ast.expr:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return ast.Constant(self._size(node.value))
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        if isinstance(node.func, ast.Name) and node.func.id in ("integers", "booleans", "weights", "halves"):
            args: list[Any] = [self._element(arg) for arg in node.args]
        else:
            args = [self.visit(arg) for arg in node.args]
        keywords = [ast.keyword(k.arg, k.value if k.arg in FACTS else self._attribute(k.value)) for k in node.keywords]
        given = {k.arg for k in keywords}
        operator = OPERATORS.get(node.func.id) if isinstance(node.func, ast.Name) else None
        for name, text in operator.variants if operator else ():
            if name not in given and self._rarely():
                keywords.append(ast.keyword(name, ast.parse(text, mode="eval").body))
        return ast.Call(node.func, args, keywords)

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        """A variant of a number; other constants occur only in shapes and attributes."""
        return self._number(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.expr:
        """A variant of a negative number."""
        return self._number(node)

    def _number(self, node: ast.expr) -> ast.expr:
        """Another number, or a tensor of one element."""
        if self._rarely():
            return ast.List([ast.Constant(1)] * self.rng.randint(1, 3), ast.Load())
        return ast.Constant(self.rng.choice(NUMBERS)) if self._rarely() else node

    def _attribute(self, node: ast.expr) -> ast.expr:
        if isinstance(node, ast.List):
            return ast.List([self._attribute(e) for e in node.elts], ast.Load())
        if isinstance(node, ast.Constant) and self._rarely():
            if type(node.value) is int:
                return ast.Constant(max(0, node.value + self.rng.choice((-1, 1, 2))))
            if type(node.value) is bool:
                return ast.Constant(not node.value)
            if node.value in ("sum", "mean", "amax", "amin", "var0.0"):
                return ast.Constant(self.rng.choice(("sum", "mean", "amax", "amin")))
        return node
