"""Sends the user's laws to another process, where an error in a law disables that law only."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import cloudpickle

from torch_eqsat.errors import LawError, TypeMismatchError
from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.laws.fingerprint import modules_of
from torch_eqsat.laws.law import Law

Shipped = tuple[tuple[str, bytes], ...]
"""The names of laws, each with its pickle."""


def ship(laws: Sequence[Law]) -> Shipped:
    """Pickles of ``laws``. The functions of their modules are pickled by value, so the other process needs neither
    these modules nor imports that only other parts of them use.

    Raises LawError, naming the law, its file and line, if a law cannot be sent.
    """
    with _by_value(name for law in laws for name in sorted(modules_of(law))):
        return tuple((law.name, _pickled(law)) for law in laws)


def _pickled(law: Law) -> bytes:
    try:
        payload: bytes = cloudpickle.dumps(law)
    except Exception as error:  # the user's objects may raise anything
        raise LawError(f"law {law.name} ({law.source}) cannot be sent to the search: {error}") from error
    return payload


@contextmanager
def _by_value(modules: Iterable[str]) -> Iterator[None]:
    known = cloudpickle.list_registry_pickle_by_value()
    added = [sys.modules[name] for name in dict.fromkeys(modules) if name in sys.modules and name not in known]
    for module in added:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in added:
            cloudpickle.unregister_pickle_by_value(module)


def receive(shipped: Shipped, failures: dict[str, str]) -> list[Law]:
    """The laws. A law that raises is dropped, and its error is noted in ``failures`` by the law's name."""
    laws = []
    for name, payload in shipped:
        if name in failures:
            continue
        try:
            laws.append(guarded(pickle.loads(payload), failures))
        except Exception as error:  # a module of the user that cannot be imported here
            failures[name] = f"law {name} cannot be loaded by the search: {type(error).__name__}: {error}"
    return laws


def guarded(law: Law, failures: dict[str, str]) -> Law:
    """``law`` with its first error or wrong result noted in ``failures``, after which it does nothing."""
    root = law.pattern.name

    def attempt(build: Callable[[], Any], roots: Sequence[Handle]) -> Any:
        if law.name in failures:
            return None
        try:
            result = build()
            problem = _problem(result, roots, law.siblings)
        except TypeMismatchError:  # operands that do not fit: no match
            return None
        except Exception as error:
            result, problem = None, f"raised {type(error).__name__}: {error}"
        if problem:
            failures[law.name] = f"law {law.name} ({law.source}) {problem}"
            return None
        return result

    def build_one(t: Builder, match: Handle, *handles: Handle) -> Any:
        return attempt(lambda: law.build(t, *handles), [match])

    def build_all(t: Builder, members: list[dict[str, Handle]]) -> Any:
        return attempt(lambda: law.build(t, members), [member[root] for member in members])

    if law.siblings:
        return replace(law, build=build_all)
    return replace(law, build=build_one, parameters=(root, *law.parameters))


def _problem(result: Any, roots: Sequence[Handle], siblings: bool) -> str:
    """The problem with the right side or sides that a law built; "" if there is none."""
    if result is None:
        return ""
    results = result if siblings else [result]
    if not isinstance(results, (list, tuple)) or len(results) != len(roots):
        return f"returned {results!r} for {len(roots)} matches"
    for new, old in zip(results, roots, strict=True):
        if new is not None and not isinstance(new, Handle):
            return f"returned {new!r}, which is not a term"
        if new is not None and new.type != old.type:
            return f"turns {old.type} into {new.type}"
    return ""
