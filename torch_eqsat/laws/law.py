"""How a law is declared.

A law is a Python function. :func:`law` takes the left side as a pattern; the function builds the right side with a
:class:`~torch_eqsat.ir.builder.Builder` from what the left side matched, or returns None where a guard says no.
:func:`equation` takes both sides as patterns, for laws that need no attributes; the function is the guard alone.
Left sides are compiled to egglog queries; shapes and dtypes are checked whenever a right side is built.

    @law("s := slice(r := slice(x))", exactness="bitwise", example="slice(slice([9], …), …)")
    def slice_of_slice(t, s, r, x):
        "slice(slice(x)) = slice(x) along one axis"
        ...

    @equation("matmul(matmul(a, b), c) = matmul(a, matmul(b, c))", example="matmul(matmul([2, 3], [3, 4]), [4, 5])")
    def matmul_is_associative():
        "(A B) C = A (B C)"
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from torch_eqsat.errors import LawError
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.laws.assumptions import Assumption, Declared, read
from torch_eqsat.laws.pattern import Application, Place, parse_pattern, parse_side, variables
from torch_eqsat.laws.rhs import built, equated

EXACTNESS = ("bitwise", "reassociates", "approximates")
Texts = str | Sequence[str] | Callable[..., Sequence[str]]
"""Example terms, or a function that makes them from the places that metavariables stand for."""
Assumes = Declared | Callable[..., Declared]
"""What a law assumes of its variables (see torch_eqsat.laws.assumptions), or a function of the places that says so."""


@dataclass(frozen=True, slots=True)
class Law:
    """A law. ``pattern`` is its left side, ``build`` makes its right side; ``siblings`` says that all matches are
    replaced together (see :func:`siblings`), ``shared`` names the variable that they have in common. A law that
    ``normalises`` runs to a fixpoint before others; one that is ``expansive`` (it makes more forms than it joins) is
    never applied along with others, only when a search chooses it. ``assumptions`` say for which values it holds;
    ``declaration`` is the function that declared it,
    which other laws may share: those of other operators, and the way back of an equation."""

    name: str
    declaration: str
    family: str
    statement: str
    exactness: str
    pattern: Application
    build: Callable[..., Any]
    parameters: tuple[str, ...]
    examples: tuple[str, ...]
    refused: tuple[str, ...]
    source: str
    siblings: bool = False
    shared: str = ""
    normalises: bool = False
    expansive: bool = False
    assumptions: tuple[Assumption, ...] = ()

    def is_named_by(self, names: Iterable[str]) -> bool:
        """Whether one of ``names`` is that of the law, of its declaration or of its family."""
        return not {self.name, self.declaration, self.family}.isdisjoint(names)


Decorator = Callable[[Callable[..., Any]], list[Law]]


@dataclass(frozen=True, slots=True)
class _Declaration:
    """What the decorators are given."""

    exactness: str
    example: Texts
    refused: Texts = ()
    siblings: bool = False
    shared: str = ""
    normalises: bool = False
    expansive: bool = False
    assumes: Assumes = field(default_factory=dict)


def law(
    pattern: str,
    *,
    exactness: str = "reassociates",
    example: Texts = (),
    refused: Texts = (),
    assumes: Assumes = MappingProxyType({}),
    normalises: bool = False,
    expansive: bool = False,
    places: Iterable[Mapping[str, Place]] | None = None,
    **metavariables: Iterable[Place],
) -> Decorator:
    """Declare a law with left side ``pattern``.

    ``exactness`` is the tier of its rounding; ``example`` are terms on which it must fire, ``refused`` near misses on
    which it must not. A metavariable (an upper-case operator name in the pattern) is expanded over the places given for
    it; ``places`` gives combinations of several. A parameter of the function that has the name of a metavariable is
    the place that it stands for. Examples of an expanded law may use the metavariable, or be made by a function of the
    places. ``assumes`` says for which values of its variables the law holds (see torch_eqsat.laws.assumptions). For
    the rest see :class:`Law`.
    Raises LawError, naming the law, its file and line, when the declaration is malformed.
    """
    given = _Declaration(exactness, example, refused, normalises=normalises, expansive=expansive, assumes=assumes)
    substitutions = list(places) if places is not None else _substitutions(metavariables)
    return lambda build: [_one_way(build, pattern, given, substitution) for substitution in substitutions]


def equation(
    sides: str,
    *,
    exactness: str = "reassociates",
    example: Texts,
    back: Texts | None = None,
    refused: Texts = (),
    assumes: Assumes = MappingProxyType({}),
    assumes_back: Assumes = MappingProxyType({}),
    normalises: bool = False,
    expansive: str = "",
    **metavariables: Iterable[Place],
) -> Decorator:
    """Declare "left = right". The function is the guard: of the variables that it names, whether the sides are equal;
    one without a body, or that returns None, always agrees.

    With ``back``, which gives examples of the right side, the equation is a law in both directions, the way back with
    assumptions of its own.
    ``expansive`` is "forward", "back" or "both" (see :class:`Law`).
    Raises LawError, naming the law, its file and line, when the declaration is malformed.
    """

    def declare(guard: Callable[..., Any]) -> list[Law]:
        left, _, right = sides.partition(" = ")
        laws = []
        for substitution in _substitutions(metavariables):
            for source, target, texts, way in ((left, right, example, "forward"), (right, left, back, "back")):
                if texts is None:
                    continue
                unequal = refused if way == "forward" else ()
                given = _Declaration(
                    exactness,
                    texts,
                    unequal,
                    normalises=normalises and way == "forward",
                    expansive=expansive in (way, "both"),
                    assumes=assumes if way == "forward" else assumes_back,
                )
                laws.append(_one_way(guard, source, given, substitution, target, "back" if way == "back" else ""))
        return laws

    return declare


def siblings(
    pattern: str,
    *,
    shared: str = "",
    example: Texts,
    refused: Texts = (),
    exactness: str = "reassociates",
    assumes: Assumes = MappingProxyType({}),
    expansive: bool = False,
    **metavariables: Iterable[Place],
) -> Decorator:
    """Declare an n-ary law: all e-nodes that match ``pattern`` with the same ``shared`` e-class (if one is named) and
    the same attributes, and do not depend on one another, are given to the function at once as a list of dicts of
    handles; it returns their replacements in order, None for those that stay, or None.

    Stated for n at once because pairwise merging of n siblings makes n² pairs, then pairs of pairs: 72, 792, 65,808
    matches in three rounds on a 12-layer encoder.
    """
    given = _Declaration(
        exactness, example, refused, siblings=True, shared=shared, expansive=expansive, assumes=assumes
    )
    return lambda build: [_one_way(build, pattern, given, places) for places in _substitutions(metavariables)]


def _substitutions(metavariables: Mapping[str, Iterable[Place]]) -> list[dict[str, Place]]:
    result: list[dict[str, Place]] = [{}]
    for name, places in metavariables.items():
        result = [{**given, name: place} for given in result for place in places]
    return result


def _one_way(
    function: Callable[..., Any],
    text: str,
    given: _Declaration,
    substitution: Mapping[str, Place],
    right: str = "",
    way: str = "",
) -> Law:
    """The law that turns the pattern ``text`` into what ``function`` builds, or into ``right`` where it agrees."""
    where = f"{inspect.getsourcefile(function)}:{function.__code__.co_firstlineno}"
    labels = [_label(place) for place in substitution.values()]
    suffix = ",".join([*labels, way] if way else labels)
    name = function.__name__ + (f"[{suffix}]" if suffix else "")
    try:
        pattern = parse_pattern(text, substitution)
        if right and not pattern.name:
            pattern = replace(pattern, name="root")
        build, parameters = (
            equated(function, parse_side(right, substitution), pattern)
            if right
            else built(function, substitution, pattern, siblings=given.siblings)
        )
        if given.shared and given.shared not in (bound := variables(pattern)):
            raise LawError(f"unbound shared variable {given.shared!r}; the pattern binds {', '.join(bound)}")
        if given.exactness not in EXACTNESS:
            raise LawError(f"exactness {given.exactness!r} is not one of {', '.join(EXACTNESS)}")
        if not function.__doc__:
            raise LawError("a law states itself in its docstring")
        examples, refused = (_texts(texts, substitution) for texts in (given.example, given.refused))
        declared = given.assumes(**substitution) if callable(given.assumes) else given.assumes
        assumptions = read(declared, variables(pattern))
    except (LawError, SyntaxError) as error:
        raise LawError(f"law {name} ({where}): {error}") from error
    return Law(
        name=name,
        declaration=function.__name__,
        family=function.__module__.rpartition(".")[2],
        statement=function.__doc__.strip().splitlines()[0],
        exactness=given.exactness,
        pattern=pattern,
        build=build,
        parameters=parameters,
        examples=examples,
        refused=refused,
        source=where,
        siblings=given.siblings,
        shared=given.shared,
        normalises=given.normalises,
        expansive=given.expansive,
        assumptions=assumptions,
    )


def _label(place: Place) -> str:
    """What tells expansions of a law apart: the operator, its operands where their number varies, the position."""
    operator = OPERATORS.get(place.op)
    varies = operator is not None and operator.arity is None and "pointwise" not in operator.traits
    return place.op + (f"/{place.arity}" if varies else "") + (f".{place.position}" if place.position else "")


def _texts(texts: Texts, substitution: Mapping[str, Place]) -> tuple[str, ...]:
    if callable(texts):
        return tuple(texts(**substitution))
    given = [texts] if isinstance(texts, str) else list(texts)
    for name, place in substitution.items():
        given = [text.replace(f"{name}(", f"{place.op}(") for text in given]
    return tuple(given)


def pointwise(*arities: int, trait: str = "pointwise", but: Sequence[str] = ()) -> list[Place]:
    """The elementwise operators with one of ``arities`` operands (and a ``trait``), for a metavariable."""
    return [
        Place(operator.name, n)
        for operator in OPERATORS.values()
        if {"pointwise", trait} <= operator.traits and operator.name not in but
        for n in arities
        if operator.arity in (None, n)
    ]


def collect(*modules: Any) -> tuple[Law, ...]:
    """All laws declared in ``modules``, in order of declaration.

    Raises LawError for two laws of one name.
    """
    laws: dict[str, Law] = {}
    for item in (item for module in modules for item in _declared_in(module)):
        if item.name in laws:
            raise LawError(f"law {item.name} ({item.source}) is declared at {laws[item.name].source} too")
        laws[item.name] = item
    return tuple(laws.values())


def _declared_in(module: Any) -> Iterator[Law]:
    for value in vars(module).values():
        if isinstance(value, list) and value and isinstance(value[0], Law):
            yield from value
