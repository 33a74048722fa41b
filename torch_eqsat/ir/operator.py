"""The record of an operator: all that the project knows of it, but for what it is in ATen (see `graph/aten/`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.ir.known import Interval, Known
from torch_eqsat.ir.types import TensorType

Attrs = Mapping[str, Any]
Types = Sequence[TensorType]
Axes = frozenset[int]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one pass over the result computes and moves."""

    elements: int
    """Elements that are computed."""
    read: int
    """Bytes that are read."""
    work: float = 1.0
    """Units of work for each element."""
    parts: int = 0
    """Buffers beyond the first."""
    calls: int = 0
    """Calls outside of generated code."""
    fused: bool = True
    """Whether the operator is fused with its neighbours, which then share the bytes."""
    tiled: bool = False
    """Whether a frozen graph on a CPU computes two of it, along rows and columns of images, in one pass."""


@dataclass(frozen=True, slots=True)
class Sample:
    """An application of an operator to a term named ``{v}``: a tensor [4, 6], [2, 4, 6] or [2, 4, 6, 6]."""

    arity: int
    """The number of operands."""
    position: int
    """Which of them is ``{v}``."""
    rank: int
    """The rank of ``{v}``."""
    axes: Axes | None
    """The axes of ``{v}`` that are acted on; None where axes do not correspond."""
    ratio: float
    """Elements of the result by elements of ``{v}``."""
    text: str
    """The term."""
    others: tuple[str, ...] = ()
    """The terms that ``text`` names, but for ``{v}``."""

    def over(self, x: str, name: str) -> list[str]:
        """The terms before, and the operator over ``x``, which gets that name."""
        return [text.replace("{v}", name) for text in (f"{{v}} := {x}", *self.others, self.text)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """An operator of the language. No field has a default: :func:`declare` says what a new one lacks."""

    name: str
    arity: int | None
    """How many operands; None means any number."""
    infer: Callable[[Attrs, Types], TensorType]
    """The type of the result; raises TypeMismatchError for operands or attributes that do not fit."""
    traits: frozenset[str]
    """"pointwise", "commutative", "reduction", "heavy" (priced by measuring), "view" (moves no data), "selection"
    (every output element is an element of the first operand), "joins" (of some operand), "integers" (may be of
    integers besides), "factory" (no operands, constant), "monotone" (never decreasing), "odd" (f(−x) = −f(x)),
    "zero" (f(0) = 0)."""
    acts_on: Mapping[int, Callable[[Attrs, Types, int], Axes | None]]
    """By operand position: the axes of that operand which are acted on, given the position. Along every other axis the
    operator does the same to each slice, and the result has that axis at the same place, with the same size. None,
    or no entry, where axes do not correspond."""
    linear_in: tuple[int, ...]
    """Positions in which the operator is linear, the other operands given (of reductions: sums and means)."""
    exact: Callable[[Attrs], bool]
    """Whether small integers in float64 give exact results."""
    by_place: bool
    """Whether kernels round in their vectorised part otherwise than in the rest of a row."""
    interval: Callable[[Attrs, Sequence[Interval | None], Sequence[TensorType | None], TensorType], Interval | None]
    """The interval of the result by those of the operands, their types and that of the result; None if not known."""
    rounded: Callable[[Attrs, Sequence[Known], Sequence[TensorType | None], TensorType], bool]
    """Whether the result is known to be off by rounding errors of its own size (see `Known`)."""
    tame: Callable[[Attrs, Sequence[Known]], bool]
    """Whether the result is known to be no mask (see `Known`)."""
    work: str
    """The class of what is computed for each element, one of those of `cost.roofline.Coefficients`."""
    traffic: Callable[[Attrs, Types, TensorType], Traffic]
    """What a kernel that computes this alone reads and computes."""
    follows_layout: bool
    """Whether the result lies in memory as the operands do."""
    defaults: Callable[[Types], Attrs]
    """Attributes that examples of laws leave out, and what they are then."""
    variants: tuple[tuple[str, str], ...]
    """Attributes that examples leave out, and the text of another value."""
    samples: tuple[Sample, ...]
    """Applications on which laws over traits are shown and tested."""
    looks_up: Callable[[Attrs, int], Sequence[tuple[int, int]]]
    """By the attributes and the number of operands: each position of an operand that holds indices, with the axis of
    the first operand that it is read along."""


def declare(name: str, arity: int | None, traits: str, **given: Any) -> Operator:
    """The record of an operator. Raises TypeError naming the operator and the fields that it lacks."""
    record = {"name": name, "arity": arity, "traits": frozenset(traits.split()), **given}
    lacking = [f.name for f in fields(Operator) if f.default is MISSING and f.name not in record]
    if lacking:
        raise TypeError(f"operator {name!r} lacks {', '.join(lacking)}")
    return Operator(**record)


def require(condition: bool, message: str) -> None:
    """Raise TypeMismatchError with ``message`` unless ``condition`` holds."""
    if not condition:
        raise TypeMismatchError(message)


def sample(arity: int, position: int, rank: int, axes: str, ratio: float, text: str, *others: str) -> Sample:
    """A sample whose ``axes`` are digits, or "?" where axes do not correspond."""
    acted = None if axes == "?" else frozenset(int(axis) for axis in axes)
    return Sample(arity, position, rank, acted, ratio, text, others)


# What many operators say in a field.


def always(*_: Any) -> bool:
    return True


def never(*_: Any) -> bool:
    return False


def not_known(*_: Any) -> None:
    return None


def no_attributes(_: Types) -> Attrs:
    return {}


def no_indices(_: Attrs, __: int) -> Sequence[tuple[int, int]]:
    return ()


def same_type(_: Attrs, types: Types) -> TensorType:
    return types[0]


def of_first(_: Attrs, known: Sequence[Interval | None], *__: Any) -> Interval | None:
    """The interval of the first operand."""
    return known[0]


def of_all(rule: Callable[[Sequence[Interval]], Interval | None], start: int = 0) -> Callable[..., Interval | None]:
    """The interval by those of all operands from ``start`` on, all of which have to be known."""

    def interval(_: Attrs, operands: Sequence[Interval | None], *__: Any) -> Interval | None:
        known = [k for k in operands[start:] if k is not None]
        return rule(known) if len(known) == len(operands) - start else None

    return interval


def hull(known: Sequence[Interval]) -> Interval:
    """The least interval around all of ``known``."""
    return min(k[0] for k in known), max(k[1] for k in known)


def rounded_as_first(_: Attrs, operands: Sequence[Known], *__: Any) -> bool:
    return bool(operands) and operands[0].rounded


def rounded_as_any(_: Attrs, operands: Sequence[Known], *__: Any) -> bool:
    return any(known.rounded for known in operands)


def rounded_as_parts(operands: Sequence[Known]) -> bool:
    """Whether all operands are rounded that are more than a number: one is a bound or a filling."""
    counted = [k for k in operands if not (k.interval and k.interval[0] == k.interval[1])]
    return bool(counted) and all(k.rounded for k in counted)


def tame_as_all(_: Attrs, operands: Sequence[Known]) -> bool:
    return bool(operands) and all(known.tame for known in operands)


def tame_as_first(_: Attrs, operands: Sequence[Known]) -> bool:
    return operands[0].tame


def streamed(_: Attrs, types: Types, result: TensorType) -> Traffic:
    """All operands are read once, and each element of the result is computed."""
    return Traffic(result.numel, sum(t.bytes for t in types))


def nothing_moved(_: Attrs, __: Types, result: TensorType) -> Traffic:
    """The traffic of what is priced otherwise: kernels that are measured, views, values that are given."""
    return Traffic(result.numel, 0)
