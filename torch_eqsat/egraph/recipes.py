"""Right sides as recipes: a law is run once for each combination of types and attributes that its left side matches.

A law is a function of the types and attributes of what it matched, and of what it asks its builder. It is run on terms
without numbers, and what it builds is noted as a recipe: operators over the matched terms and over each other. Each
match of the same combination then has the recipe carried out on its own terms. What the law asked of values (whether a
term is constant, what is known of it) stands in the recipe as a question, and is asked again for each match. A law that
looks at anything else, such as the identity of terms or the forms of an e-class, is called for each match.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Never, cast

from torch_eqsat.egraph.compile import Column
from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.ir.builder import Builder, Handle, TermStore
from torch_eqsat.ir.known import Interval
from torch_eqsat.ir.operators import OPERATORS, infer_type
from torch_eqsat.ir.term import Attributes, Node
from torch_eqsat.ir.types import TensorType
from torch_eqsat.laws.law import Law


@dataclass(eq=False, slots=True)
class Step:
    """An application that a law makes: the operator, and its operands as places (first the matched terms, then the
    results of the steps before)."""

    op: str
    attrs: Attributes
    operands: tuple[int, ...]
    type: TensorType
    commutes: bool


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a law builds: its steps in order, and the place of the result. Without a result the law refuses."""

    steps: tuple[Step, ...] = ()
    result: int | None = None
    type: TensorType | None = None


@dataclass(slots=True)
class Question:
    """What a law asked of the term at a ``place``, and how it went on by the answer's text: 0, 0.0 and False differ."""

    ask: Callable[[Builder, Handle], Any]
    place: int
    answers: dict[str, Course] = field(default_factory=dict)


class Called:
    """The law has to be called for each match."""


Course = Recipe | Question | Called
REFUSED, CALLED = Recipe(), Called()


class _LookedError(BaseException):
    """A law looked at something that differs from match to match. No law catches it as one of its own exceptions."""


def _looks(*_: Any) -> Never:
    raise _LookedError


class _Number:
    """The number of a term while a law is recorded: it may be handed on, and not looked at."""

    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        self.place = place

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __hash__ = __index__ = __repr__ = _looks


class _Unordered(tuple[Handle, ...]):
    """The operands of a commutative operator, whose order depends on the numbers of the terms."""

    __slots__ = ()
    __iter__ = __getitem__ = __len__ = __contains__ = __eq__ = __hash__ = __add__ = __repr__ = _looks


def _place(x: Handle) -> int:
    return cast(_Number, x.id).place


class _Recorder(Builder):
    """Notes what a law builds over terms without numbers. ``answer`` gives what is known of a matched term."""

    def __init__(self, matched: int, answer: Callable[[Callable[[Builder, Handle], Any], int], Any]) -> None:
        super().__init__(cast(TermStore, None))
        self.steps: list[Step] = []
        self.asked: list[tuple[Callable[[Builder, Handle], Any], int, Any]] = []
        self._matched, self._answer = matched, answer

    def _insert(self, op: str, attrs: Attributes, children: Sequence[Handle]) -> Handle:
        type_ = infer_type(op, dict(attrs), [child.type for child in children])
        commutes = "commutative" in OPERATORS[op].traits
        self.steps.append(Step(op, attrs, tuple(map(_place, children)), type_, commutes))
        number = cast(int, _Number(self._matched + len(self.steps) - 1))
        return Handle(number, type_, op, attrs, _Unordered(children) if commutes else tuple(children))

    def forms(self, x: Handle) -> list[Node]:
        raise _LookedError

    def input(self, shape: Sequence[int], dtype: str = "float32", **known: float) -> Handle:
        raise _LookedError  # each is another one

    def is_constant(self, x: Handle) -> bool:
        return bool(self._ask(lambda builder, term: builder.is_constant(term), x))

    def known(self, x: Handle, fact: str) -> Any:
        return self._ask(lambda builder, term: builder.known(term, fact), x)

    def interval(self, x: Handle) -> Interval | None:
        return cast(Interval | None, self._ask(lambda builder, term: builder.interval(term), x))

    def _ask(self, ask: Callable[[Builder, Handle], Any], x: Handle) -> Any:
        place = _place(x)
        if place >= self._matched:  # a term that is not there yet
            raise _LookedError
        answer = self._answer(ask, place)
        self.asked.append((ask, place, answer))
        return answer


class LawRecipes:
    """The recipes of one law, by the numbers of the types and attributes in the columns of its match table."""

    def __init__(self, law: Law, columns: Sequence[Column]) -> None:
        self._law, self._columns = law, columns
        self.courses: dict[tuple[int, ...], Course] = {}
        self.place_of = {column.name: index for index, column in enumerate(columns) if not column.attribute}

    def find(
        self,
        key: tuple[int, ...],
        row: Sequence[int],
        bind: Callable[[], Mapping[str, Handle] | None],
        builder: Builder,
        types: Sequence[TensorType | None],
    ) -> Recipe | Called:
        """What the law does with a match of the combination ``key``: ``row`` has its terms, by column."""

        def answer(ask: Callable[[Builder, Handle], Any], place: int) -> Any:
            type_ = types[row[place]]
            assert type_ is not None
            return ask(builder, Handle(row[place], type_))

        course = self.courses.get(key)
        table: dict[Any, Course] = self.courses
        known: Any = key
        while isinstance(course, Question):
            table, known = course.answers, repr(answer(course.ask, course.place))
            course = table.get(known)
        if course is None:
            course = self._record(key, bind(), answer)
        return course

    def _record(
        self,
        key: tuple[int, ...],
        bound: Mapping[str, Handle] | None,
        answer: Callable[[Callable[[Builder, Handle], Any], int], Any],
    ) -> Recipe | Called:
        recorder = _Recorder(len(self._columns), answer)
        course = REFUSED if bound is None else self._run(recorder, bound)
        table: dict[Any, Course] = self.courses
        known: Any = key
        for ask, place, said in recorder.asked:
            question = table.setdefault(known, Question(ask, place))
            if not isinstance(question, Question):  # it asked nothing before: not a function of what it matched
                return CALLED
            table, known = question.answers, repr(said)
        table[known] = course
        return course

    def _run(self, recorder: _Recorder, bound: Mapping[str, Handle]) -> Recipe | Called:
        numbered = _without_numbers(bound, self.place_of, self._columns)
        try:
            result = self._law.build(recorder, *(numbered[name] for name in self._law.parameters))
            return REFUSED if result is None else Recipe(tuple(recorder.steps), _place(result), result.type)
        except TypeMismatchError:
            return REFUSED
        except (_LookedError, Exception):  # a fault of the law's own is met again when it is called
            return CALLED


def _without_numbers(
    bound: Mapping[str, Handle], place_of: Mapping[str, int], columns: Sequence[Column]
) -> dict[str, Handle]:
    """The terms of a match, each under its place."""
    made: dict[str, Handle] = {}
    for column in reversed(columns):
        handle = bound[column.name]
        operands = tuple(made[name] for name in column.operands) if column.attribute else ()
        number = cast(int, _Number(place_of[column.name]))
        if column.attribute or column.name not in made:
            made[column.name] = Handle(number, handle.type, handle.op, handle.attrs, operands)
    return made


class Numbers:
    """Numbers of types and attributes that are equal in all e-graphs of a process."""

    def __init__(self) -> None:
        self._types: dict[TensorType | None, int] = {}
        self._attributes: dict[str, int] = {}

    def of_type(self, type_: TensorType | None) -> int:
        """The number of a type."""
        return self._types.setdefault(type_, len(self._types))

    def of_attributes(self, attrs: Attributes) -> int:
        """Equal for attributes that are written alike: as numbers, 0.0 and −0.0 are equal."""
        return self._attributes.setdefault(repr(attrs), len(self._attributes))
