"""Right sides of laws as functions of a builder and of the terms that the left side bound."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch_eqsat.errors import LawError
from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.laws.pattern import Application, Pattern, Place, Variable, variables


def built(
    function: Callable[..., Any], substitution: Mapping[str, Place], pattern: Application, *, siblings: bool
) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """``function`` with its places filled in: a function of a builder and of handles, and the names of these
    handles."""
    names = tuple(inspect.signature(function).parameters)[1:]
    if siblings:
        return function, names
    asked = {name: substitution[name] for name in names if name in substitution}
    parameters = tuple(name for name in names if name not in asked)
    _check_bound(parameters, variables(pattern))
    if not asked:
        return function, parameters

    def build(t: Builder, *handles: Handle) -> Handle | None:
        result: Handle | None = function(t, **dict(zip(parameters, handles, strict=True)), **asked)
        return result

    return build, parameters


def equated(
    guard: Callable[..., Any], right: Pattern, pattern: Application
) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """A function that builds ``right`` if ``guard`` agrees and both sides have one type, and the names of its
    handles."""
    asked = tuple(inspect.signature(guard).parameters)
    bound = variables(pattern)
    _check_bound((*variables(right), *asked), bound)
    parameters = tuple(bound)

    def build(t: Builder, *handles: Handle) -> Handle | None:
        known = dict(zip(parameters, handles, strict=True))
        if guard(**{name: known[name] for name in asked}) is False:
            return None
        root = handles[0]
        result = _construct(t, right, known, root.type.dtype)
        return result if result.type == root.type else None

    return build, parameters


def _construct(t: Builder, side: Pattern, known: Mapping[str, Handle], dtype: str) -> Handle:
    if isinstance(side, Variable):
        return known[side.name]
    if side.value is not None:
        return t.scalar(side.value, dtype)
    return t.apply(side.op, [_construct(t, child, known, dtype) for child in side.children])


def _check_bound(wanted: Iterable[str], bound: Sequence[str]) -> None:
    for name in wanted:
        if name not in bound:
            raise LawError(f"unbound variable {name!r}; the pattern binds {', '.join(bound)}")
