"""How a law is declared.

A law is a Python function: the decorator names the left side, the function builds the right side with a
:class:`~torch_eqsat.rules.builder.Builder` from what the left side matched, or returns None where a guard says no.
The left side is compiled to an egglog query; shapes and dtypes are checked when the right side is built.

    @law("matmul(matmul(a, b), c)", example="matmul(matmul([2, 3], [3, 4]), [4, 5])")
    def matmul_is_associative(t, a, b, c):
        "(A B) C = A (B C)"
        return t.matmul(a, t.matmul(b, c))
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch_eqsat.errors import RuleError
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.rules.pattern import Application, parse_pattern, variables

EXACTNESS = ("bitwise", "reassociates", "approximates")
Metavariable = tuple[str, int]
"""An operator and its number of operands, which a metavariable of a pattern stands for."""


@dataclass(frozen=True, slots=True)
class Law:
    """A law. ``pattern`` is its left side, ``build`` makes its right side; ``siblings`` names the variable that all
    members of a group share (see :func:`siblings`), "" for an ordinary law; a law that ``normalises`` runs to a
    fixpoint before others; an ``expansive`` one (free associativity, say) is never part of a batch."""

    name: str
    family: str
    statement: str
    exactness: str
    pattern: Application
    build: Callable[..., Any]
    parameters: tuple[str, ...]
    examples: tuple[str, ...]
    refused: tuple[str, ...]
    source: str
    siblings: str = ""
    normalises: bool = False
    expansive: bool = False


def law(
    pattern: str,
    *,
    exactness: str = "reassociates",
    example: str | Sequence[str] = (),
    refused: str | Sequence[str] = (),
    normalises: bool = False,
    **metavariables: Iterable[Metavariable],
) -> Callable[[Callable[..., Any]], list[Law]]:
    """Declare a law with left side ``pattern``.

    ``exactness`` is the tier of its rounding; ``example`` are terms on which it must fire, ``refused`` near misses on
    which it must not. A law that ``normalises`` is applied to a fixpoint before any other is matched, so that others
    meet normal forms alone. A metavariable (an upper-case operator name in the pattern) is expanded over the operators
    given for it; the arity in the pattern has to be theirs. Examples of an expanded law may use the metavariable.
    Raises RuleError, naming the law, its file and line, when the declaration is malformed.
    """

    def declare(build: Callable[..., Any]) -> list[Law]:
        return [
            _declare(build, pattern, exactness, example, refused, substitution, normalises=normalises)
            for substitution in _substitutions(metavariables)
        ]

    return declare


def siblings(
    pattern: str, *, shared: str, example: str | Sequence[str], exactness: str = "reassociates"
) -> Callable[[Callable[..., Any]], list[Law]]:
    """Declare an n-ary law: all e-nodes that match ``pattern`` with the same ``shared`` e-class and the same
    attributes, and do not depend on one another, are given to the function at once as a list of dicts of handles; it
    returns their replacements in order, or None.

    Stated for n at once because pairwise merging of n siblings makes n² pairs, then pairs of pairs: 72, 792, 65,808
    matches in three rounds on a 12-layer encoder.
    """

    def declare(build: Callable[..., Any]) -> list[Law]:
        return [_declare(build, pattern, exactness, example, (), {}, shared)]

    return declare


def _substitutions(metavariables: dict[str, Iterable[Metavariable]]) -> list[dict[str, Metavariable]]:
    result: list[dict[str, Metavariable]] = [{}]
    for name, operators in metavariables.items():
        result = [{**given, name: operator} for given in result for operator in operators]
    return result


def _declare(
    build: Callable[..., Any],
    text: str,
    exactness: str,
    example: str | Sequence[str],
    refused: str | Sequence[str],
    substitution: dict[str, Metavariable],
    shared: str = "",
    normalises: bool = False,
) -> Law:
    where = f"{inspect.getsourcefile(build)}:{build.__code__.co_firstlineno}"
    suffix = ",".join(op for op, _ in substitution.values())
    name = build.__name__ + (f"[{suffix}]" if suffix else "")
    try:
        pattern = parse_pattern(text, substitution)
        parameters = tuple(inspect.signature(build).parameters)[1:]
        bound = variables(pattern)
        if not shared and (unbound := [p for p in parameters if p not in bound]):
            raise RuleError(f"unbound variable {unbound[0]!r}; the pattern binds {', '.join(bound)}")
        if shared and shared not in bound:
            raise RuleError(f"unbound shared variable {shared!r}; the pattern binds {', '.join(bound)}")
        if exactness not in EXACTNESS:
            raise RuleError(f"exactness {exactness!r} is not one of {', '.join(EXACTNESS)}")
        if not build.__doc__:
            raise RuleError("a law states itself in its docstring")
    except (RuleError, SyntaxError) as error:
        raise RuleError(f"law {name} ({where}): {error}") from error
    expand = [_texts(texts, substitution) for texts in (example, refused)]
    family = build.__module__.rpartition(".")[2]
    statement = build.__doc__.strip().splitlines()[0]
    return Law(
        name, family, statement, exactness, pattern, build, parameters, expand[0], expand[1], where, shared, normalises
    )


def _texts(texts: str | Sequence[str], substitution: dict[str, Metavariable]) -> tuple[str, ...]:
    given = [texts] if isinstance(texts, str) else list(texts)
    for name, (op, _) in substitution.items():
        given = [text.replace(f"{name}(", f"{op}(") for text in given]
    return tuple(given)


def pointwise(*arities: int) -> list[Metavariable]:
    """The elementwise operators with one of ``arities`` operands, for a metavariable."""
    found: list[Metavariable] = []
    for operator in OPERATORS.values():
        if "pointwise" in operator.traits:
            found += [(operator.name, n) for n in arities if operator.arity in (None, n)]
    return found


def collect(*modules: Any) -> tuple[Law, ...]:
    """All laws declared in ``modules``, in order of declaration.

    Raises RuleError for two laws of one name.
    """
    laws: dict[str, Law] = {}
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, list) and value and isinstance(value[0], Law):
                for item in value:
                    if item.name in laws:
                        raise RuleError(f"law {item.name} ({item.source}) is declared at {laws[item.name].source} too")
                    laws[item.name] = item
    return tuple(laws.values())
