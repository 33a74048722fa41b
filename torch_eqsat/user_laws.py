"""The user's laws: from the option ``eqsat.laws`` and from installed packages; checked before any other work."""

from __future__ import annotations

import difflib
import importlib
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType

from torch_eqsat.errors import EqsatError, LawError, OptionError
from torch_eqsat.laws.fingerprint import fingerprint
from torch_eqsat.laws.law import Law, collect
from torch_eqsat.laws.matcher import check_examples
from torch_eqsat.laws.transfer import Shipped, ship
from torch_eqsat.options import PREFIX, Options
from torch_eqsat.rewrites import catalogue

GROUP = "torch_eqsat.laws"
"""Entry points of this group are modules of laws ("package.module") or laws in them ("package.module:name")."""


@dataclass(frozen=True, slots=True)
class UserLaws:
    """Laws that are not in the catalogue, as they are sent to the search. ``key`` is a hash of their code and
    declarations, the same in all processes."""

    laws: tuple[Law, ...] = ()
    shipped: Shipped = ()
    key: str = ""


NO_LAWS = UserLaws()


def load_laws(options: Options) -> UserLaws:
    """The laws that ``options`` names and those of installed packages, without the disabled ones.

    Raises LawError, naming the law, its file and line, for a law that is malformed, fails on its examples, has the
    name of another law or cannot be sent to another process. Raises OptionError for a module that cannot be imported,
    and for a disabled name that no law, family or entry point has.
    """
    points = sorted(metadata.entry_points(group=GROUP), key=lambda point: (point.name, point.value))
    chosen = [point.value for point in points if point.name not in options.disable]
    found = {id(law): law for entry in (*chosen, *options.laws) for law in _laws_of(entry)}
    laws = list(found.values())
    if not laws and not options.disable:
        return NO_LAWS
    known = list(catalogue())
    _check_names(known, laws)
    _check_disabled(options.disable, [*known, *laws], [point.name for point in points])
    kept = tuple(law for law in laws if not law.is_named_by(options.disable))
    for law in kept:
        _check(law)
    return UserLaws(kept, ship(kept), fingerprint(kept))


def _laws_of(entry: Law | str) -> Iterator[Law]:
    """The laws of one entry: all laws of a module, or those under the name after the colon."""
    if isinstance(entry, Law):
        yield entry
        return
    path, _, name = entry.partition(":")
    module = _imported(path, entry)
    if not name:
        laws = collect(module)
        if not laws:
            raise OptionError(f"module {path!r}, named in {PREFIX}laws or by an entry point, declares no laws")
        yield from laws
        return
    value = getattr(module, name, None)
    found = [value] if isinstance(value, Law) else value
    if not isinstance(found, (list, tuple)) or not found or not all(isinstance(law, Law) for law in found):
        raise OptionError(
            f"{entry!r}, named in {PREFIX}laws or by an entry point, is not a law{_nearest(name, _declared(module))}"
        )
    yield from found


def _declared(module: ModuleType) -> list[str]:
    """The names of laws in a module."""
    return [
        name for name, value in vars(module).items() if isinstance(value, list) and value and isinstance(value[0], Law)
    ]


def _imported(path: str, entry: str) -> ModuleType:
    try:
        return importlib.import_module(path)
    except EqsatError:
        raise  # the message names the malformed law
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise OptionError(
            f"{entry!r}, named in {PREFIX}laws or by an entry point, cannot be imported: "
            f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
        ) from error


def _check(law: Law) -> None:
    try:
        check_examples(law)
    except LawError:
        raise
    except Exception as error:
        raise LawError(
            f"law {law.name} ({law.source}) raises {type(error).__name__} on its examples: {error}"
        ) from error


def _check_names(known: Sequence[Law], laws: Sequence[Law]) -> None:
    taken = {law.name: law for law in known}
    for law in laws:
        other = taken.setdefault(law.name, law)
        if other is not law:
            raise LawError(f"law {law.name} ({law.source}) is also declared at {other.source}; rename it")


def _check_disabled(names: Sequence[str], laws: Sequence[Law], points: Sequence[str]) -> None:
    known = [*dict.fromkeys(name for law in laws for name in (law.family, law.declaration, law.name)), *points]
    for name in names:
        if name not in known:
            raise OptionError(
                f"option '{PREFIX}disable' names {name!r}, which is no law or family{_nearest(name, known)}"
            )


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 3, cutoff=0.4)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else f"; known: {', '.join(known) or 'none'}"
