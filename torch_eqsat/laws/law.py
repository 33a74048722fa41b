"""The declaration of laws.

A law is a Python function. :func:`law` takes the left side as a pattern; the function builds the right side with a
:class:`~torch_eqsat.ir.builder.Builder` from the matched terms, or returns None if its guard refuses them.
:func:`equation` takes both sides as patterns, for laws that need no attributes; the function is only the guard. Left
sides are compiled to egglog queries. Shapes and dtypes are checked whenever a right side is built.

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
from torch_eqsat.ir.builder import Handle
from torch_eqsat.laws.assumptions import Assumption, Declared, read
from torch_eqsat.laws.expansion import Texts, expanded, label, substitutions
from torch_eqsat.laws.pattern import ROOT, Application, Place, parse_pattern, parse_side, variables
from torch_eqsat.laws.rhs import built, equated
from torch_eqsat.laws.sizes import ANY, Sizes, read_sizes

EXACTNESS = ("bitwise", "reassociates", "approximates")
Assumes = Declared | Callable[..., Declared]
"""Assumptions about variables (see torch_eqsat.laws.assumptions), or a function of the places that returns them."""


@dataclass(frozen=True, slots=True)
class Law:
    """A law: ``pattern`` is its left side, under whose name the whole match is bound; ``build`` makes its right side.

    With ``siblings``, all matches are replaced together (see :func:`siblings`); ``shared`` names the variable that they
    have in common. A law that ``normalises`` runs to a fixpoint before others. A law that is ``expansive`` (it makes
    more forms than it joins) is applied only when a search chooses it, never along with others. ``assumptions`` state
    for which values it holds, ``sizes`` which matches the query leaves out. ``declaration`` is the name of the function
    that declared it; laws for other operators and the way back of an equation share it.
    """

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
    sizes: Sizes = ANY

    def is_named_by(self, names: Iterable[str]) -> bool:
        """Whether one of ``names`` is that of the law, of its declaration or of its family."""
        return not {self.name, self.declaration, self.family}.isdisjoint(names)


Built = Callable[..., Handle | None]
"""A function that builds the right side of a law; None where the law does not hold."""
Replaced = Callable[..., Sequence[Handle | None] | None]
"""A function that builds the replacements of siblings, with None for those that stay; None if all stay."""
Agrees = Callable[..., bool | None]
"""The guard of an equation; False where its sides are not equal."""


@dataclass(frozen=True, slots=True)
class _Declaration:
    """The arguments of the decorators."""

    exactness: str
    example: Texts
    refused: Texts = ()
    siblings: bool = False
    shared: str = ""
    normalises: bool = False
    expansive: bool = False
    assumes: Assumes = field(default_factory=dict)
    smaller: str = ""
    whole: str = ""


def law(
    pattern: str,
    *,
    exactness: str = "reassociates",
    example: Texts = (),
    refused: Texts = (),
    assumes: Assumes = MappingProxyType({}),
    normalises: bool = False,
    expansive: bool = False,
    smaller: str = "",
    whole: str = "",
    places: Iterable[Mapping[str, Place]] | None = None,
    **metavariables: Iterable[Place],
) -> Callable[[Built], list[Law]]:
    """Declare a law with left side ``pattern``.

    ``exactness`` is the tier of its rounding. ``example`` are terms on which it must fire, ``refused`` near misses on
    which it must not. A metavariable (an upper-case operator name in the pattern) is expanded over the places given for
    it; ``places`` gives combinations for several metavariables. A parameter of the function with the name of a
    metavariable receives the place. Examples of an expanded law may use the metavariable, or be made by a function of
    the places. ``assumes`` states for which values of its variables the law holds (see torch_eqsat.laws.assumptions).
    ``smaller`` names operands with fewer elements than the call that they are an operand of, as in "c d"; those beside
    them then have as many, as all operands of a call do whose names are in ``whole``. The function, which has to refuse
    all else, does not see it. For the rest see :class:`Law`.

    Raises LawError, naming the law, its file and line, if the declaration is malformed.
    """
    given = _Declaration(
        exactness,
        example,
        refused,
        normalises=normalises,
        expansive=expansive,
        assumes=assumes,
        smaller=smaller,
        whole=whole,
    )
    chosen = list(places) if places is not None else substitutions(metavariables)
    return lambda build: [_one_way(build, pattern, given, substitution) for substitution in chosen]


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
) -> Callable[[Agrees], list[Law]]:
    """Declare "left = right". The function is the guard: it takes variables by name and returns whether the sides are
    equal. A function that returns None, such as one without a body, always agrees.

    With ``back``, which gives examples of the right side, the equation is a law in both directions; the way back has
    its own assumptions, ``assumes_back``. ``expansive`` is "forward", "back" or "both" (see :class:`Law`).

    Raises LawError, naming the law, its file and line, if the declaration is malformed.
    """

    def declare(guard: Agrees) -> list[Law]:
        left, _, right = sides.partition(" = ")
        laws = []
        for substitution in substitutions(metavariables):
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
) -> Callable[[Replaced], list[Law]]:
    """Declare a law for n siblings: all e-nodes that match ``pattern`` with the same ``shared`` e-class (if one is
    named) and the same attributes, and do not depend on each other.

    The function gets all of them at once, as a list of dicts of handles. It returns their replacements in order, with
    None for those that stay, or None if all stay. The law is not stated for pairs, because merging n siblings pairwise
    makes n² pairs, then pairs of pairs: 72, 792, 65,808 matches in three rounds on a 12-layer encoder.
    """
    given = _Declaration(
        exactness, example, refused, siblings=True, shared=shared, expansive=expansive, assumes=assumes
    )
    return lambda build: [_one_way(build, pattern, given, places) for places in substitutions(metavariables)]


def _one_way(
    function: Callable[..., Any],
    text: str,
    given: _Declaration,
    substitution: Mapping[str, Place],
    right: str = "",
    way: str = "",
) -> Law:
    """The law from the pattern ``text`` to the term that ``function`` builds, or to ``right`` with ``function`` as
    guard."""
    where = f"{inspect.getsourcefile(function)}:{function.__code__.co_firstlineno}"
    labels = [label(place) for place in substitution.values()]
    suffix = ",".join([*labels, way] if way else labels)
    name = function.__name__ + (f"[{suffix}]" if suffix else "")
    try:
        pattern = parse_pattern(text, substitution)
        pattern = replace(pattern, name=pattern.name or ROOT)
        build, parameters = (
            equated(function, parse_side(right, substitution), pattern)
            if right
            else built(function, substitution, pattern, siblings=given.siblings)
        )
        _check(given, variables(pattern))
        statement = _statement(function)
        examples, refused = (expanded(texts, substitution) for texts in (given.example, given.refused))
        declared = given.assumes(**substitution) if callable(given.assumes) else given.assumes
        assumptions = read(declared, variables(pattern))
        sizes = read_sizes(given.smaller, given.whole, pattern)
    except (LawError, SyntaxError) as error:
        raise LawError(f"law {name} ({where}): {error}") from error
    return Law(
        name=name,
        declaration=function.__name__,
        family=function.__module__.rpartition(".")[2],
        statement=statement,
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
        sizes=sizes,
    )


def _check(given: _Declaration, bound: Sequence[str]) -> None:
    """Raise LawError if the declaration of a law whose pattern binds the variables ``bound`` is malformed."""
    if given.shared and given.shared not in bound:
        raise LawError(f"unbound shared variable {given.shared!r}; the pattern binds {', '.join(bound)}")
    if given.exactness not in EXACTNESS:
        raise LawError(f"exactness {given.exactness!r} is not one of {', '.join(EXACTNESS)}")


def _statement(function: Callable[..., Any]) -> str:
    """The first line of the docstring. Raises LawError without one."""
    if not function.__doc__:
        raise LawError("a law states itself in its docstring, which is missing")
    return function.__doc__.strip().splitlines()[0]


def collect(*modules: Any) -> tuple[Law, ...]:
    """All laws declared in ``modules``, in order of declaration.

    Raises LawError if two laws have the same name.
    """
    laws: dict[str, Law] = {}
    for item in (item for module in modules for item in _declared_in(module)):
        if item.name in laws:
            raise LawError(f"law {item.name} ({item.source}) is also declared at {laws[item.name].source}")
        laws[item.name] = item
    return tuple(laws.values())


def _declared_in(module: Any) -> Iterator[Law]:
    for value in vars(module).values():
        if isinstance(value, list) and value and isinstance(value[0], Law):
            yield from value
