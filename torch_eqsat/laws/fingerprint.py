"""A hash of a law's code and declaration, equal in every process: for keys of caches that depend on the user's laws."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import sysconfig
import types
from collections.abc import Iterable, Mapping, Set
from dataclasses import fields
from typing import Any

from torch_eqsat.laws.law import Law


def modules_of(law: Law) -> set[str]:
    """The modules that define the functions of a law, without those of this package."""
    found: set[str] = set()
    waiting: list[Any] = [law.build]
    while waiting:
        value = waiting.pop()
        if isinstance(value, types.FunctionType):
            found.add(value.__module__)
            waiting += _contents(value)
    return {name for name in found if _root(name) != _root(__name__)}


def _contents(function: types.FunctionType) -> list[Any]:
    """The values of the variables that a function closes over."""
    values = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # an empty cell
            values.append(cell.cell_contents)
    return values


def fingerprint(laws: Iterable[Law]) -> str:
    """A hash of laws: of their declarations, and of the code of their functions with everything that it calls.

    The standard library, this package and installed packages other than the laws' own count by their versions. A value
    whose ``repr`` shows its address makes the hash valid for this process only, so that stored plans are not found.
    """
    digest = hashlib.sha256()
    for law in laws:
        written = _Written({_root(name) for name in modules_of(law)})
        for field in fields(law):
            if field.name != "source":  # the place of a declaration does not change the law
                written.value(getattr(law, field.name))
        digest.update("\n".join(written.parts).encode())
    return digest.hexdigest()


class _Written:
    """Writes values part by part, each function once."""

    def __init__(self, own: set[str]) -> None:
        self.own = own
        self.parts: list[str] = []
        self.seen: set[int] = set()

    def value(self, value: Any) -> None:
        match value:
            case types.FunctionType():
                self._once(value, self._function)
            case types.MethodType():
                self.value(value.__func__)
                self.value(value.__self__)
            case types.CodeType():
                self._code(value)
            case type():
                self._once(value, self._class)
            case types.ModuleType():
                self.parts.append(f"module {value.__name__} {_version(value.__name__)}")
            case str() | bytes():
                self.parts.append(repr(value))
            case Mapping():
                self._all("mapping", value)
                self._all("values", value.values())
            case Set():
                self.parts.append(f"set {sorted(map(repr, value))}")
            case tuple() | list():
                self._all(type(value).__name__, value)
            case _:
                self.parts.append(repr(value))

    def _all(self, kind: str, values: Iterable[Any]) -> None:
        found = list(values)
        self.parts.append(f"{kind} of {len(found)}")
        for value in found:
            self.value(value)

    def _once(self, value: Any, write: Any) -> None:
        self.parts.append(f"{value.__module__}.{value.__qualname__} {_version(value.__module__)}")
        if id(value) not in self.seen:
            self.seen.add(id(value))
            write(value)

    def _function(self, function: types.FunctionType) -> None:
        if self._is_written(function.__module__):
            self._code(function.__code__)
            self._globals(function.__code__, function.__globals__)
        self.value(function.__defaults__)
        self.value(function.__kwdefaults__)
        for content in _contents(function):
            self.value(content)

    def _class(self, class_: type) -> None:
        if self._is_written(class_.__module__):
            for name, member in vars(class_).items():
                if isinstance(member, (types.FunctionType, int, float, str, tuple)):
                    self.parts.append(name)
                    self.value(member)

    def _code(self, code: types.CodeType) -> None:
        self.parts.append(
            f"code {code.co_code.hex()} {code.co_names} {code.co_freevars} {code.co_exceptiontable.hex()}"
        )
        self.value(code.co_consts)

    def _globals(self, code: types.CodeType, known: Mapping[str, Any]) -> None:
        """The values of the global names in ``code`` and in the functions defined inside it."""
        for name in code.co_names:
            if name in known:
                self.parts.append(f"global {name}")
                self.value(known[name])
                if isinstance(known[name], types.ModuleType) and self._is_written(known[name].__name__):
                    self._globals(code, {k: v for k, v in vars(known[name]).items() if k != name})
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._globals(constant, known)

    def _is_written(self, module: str | None) -> bool:
        """Whether the code of a module is written: not for the standard library, this package or other installed
        ones."""
        root = _root(module or "")
        if root in self.own:
            return True
        file = getattr(sys.modules.get(root), "__file__", None) or ""
        installed = file.startswith((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
        return not installed and root not in sys.stdlib_module_names and root != _root(__name__)


def _root(module: str) -> str:
    return module.partition(".")[0]


def _version(module: str | None) -> str:
    return str(getattr(sys.modules.get(_root(module or "")), "__version__", ""))
