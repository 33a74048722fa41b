"""The check before each call that no weight changed of those that are constants of a compiled graph."""

from __future__ import annotations

import ctypes
import logging
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import count
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch._inductor.codecache import CppCodeCache
from torch.multiprocessing.reductions import StorageWeakRef

from torch_eqsat.errors import first_line
from torch_eqsat.planning.inductor.versions import content_of, has_memory, note_of

logger = logging.getLogger(__name__)
_numbers = count(2)


@dataclass(frozen=True, eq=False)  # modules may be equal to others
class Place:
    """Where a call finds a weight: ``vars(owner)[table][key]``. The owner is not kept."""

    owner: weakref.ref[Any]
    table: str
    key: str

    def weight(self) -> Tensor | None:
        """What is there."""
        found = vars(self.owner()).get(self.table, {}).get(self.key) if self.owner() is not None else None
        return found if isinstance(found, Tensor) else None


def can_watch(otherwise: str) -> bool:
    """Whether changes can be seen here; if not, a line says why, and what happens ``otherwise``."""
    if why := _why_blind():
        logger.warning("the check of frozen weights does not run here (%s): %s", why, otherwise)
    return not why


@cache
def _why_blind() -> str:
    """Why weights cannot be watched; "" if they can."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "it needs Python's global lock"
    module = nn.Module()
    module.register_buffer("weight", torch.zeros(1))
    try:
        Watch([(Place(weakref.ref(module), "_buffers", "weight"), module.weight)])
    except Exception as error:  # whatever a compiler may say
        return first_line(error)
    return ""


class Watch:
    """The constants among the weights of one compiled graph, and how they stood when they became that.

    Dynamo guards on the result of :meth:`state`, once for all weights, in place of guards on each. It is compiled
    (watch.cpp, once on a machine, in 2 s): guards of Dynamo's, and a check in Python, wait for memory again and again
    (`python -m bench.prices.guards`).
    """

    def __init__(self, weights: Sequence[tuple[Place, Tensor]], *, values: bool = False) -> None:
        """``weights`` lie at their places; ``values`` asks for contents."""
        owners: dict[int, tuple[weakref.ref[Any], list[tuple[str, str, Tensor, StorageWeakRef | None]]]] = {}
        for place, weight in weights:
            storage = StorageWeakRef(weight.untyped_storage()) if has_memory(weight) else None
            of_owner = owners.setdefault(id(place.owner()), (place.owner, []))[1]
            of_owner.append((place.table, place.key, weight, storage))
        self._watch = _library().new_watch(list(owners.values()))
        compared = {place: weight for place, weight in weights if values and has_memory(weight)}
        self._contents = {place: content_of(weight, values=True) for place, weight in compared.items()}

    def state(self) -> int:
        """1 if all of the weights are there, and stand as they stood; else a number that never comes back, so that no
        guard that is made just then takes a change for what it has to expect."""
        return 1 if self.unchanged() else next(_numbers)

    def unchanged(self) -> bool:
        """Whether all of the weights are there, and stand as they stood."""
        if not self._contents:
            return bool(self._watch.unchanged())
        with torch._C.DisableTorchFunction():
            return self._watch.unchanged() and all(map(self._has_content, self._contents))

    def _has_content(self, place: Place) -> bool:
        weight = place.weight()
        return weight is not None and content_of(weight, values=True) == self._contents[place]

    def name_on(self, weight: Tensor) -> str:
        """The name under which the checks of the note on ``weight`` hold this one from now on."""
        name = f"state_{next(_numbers)}"
        setattr(note_of(weight).checks, name, self.state)
        return name


class _Cache(CppCodeCache):
    """Libraries of torch's own C++, which take and give Python objects."""

    cache: ClassVar[dict[str, Any]] = {}
    cache_clear = staticmethod(cache.clear)
    cpp_compile_command_flags: ClassVar[dict[str, Any]] = {"include_pytorch": True, "shared": True}

    @staticmethod
    def _load_library_inner(path: str, key: str) -> ctypes.CDLL:
        return ctypes.PyDLL(path)


@cache
def _library() -> Any:
    source = resources.files(__package__ or "").joinpath("watch.cpp").read_text(encoding="utf-8")
    source += f"// torch {torch.__version__}, Python {sys.version}\n"  # a cache may outlive either
    # Inductor names the libraries that need libc10, and some linkers leave out those of which nothing is used directly.
    flags = ("-Wl,--no-as-needed",) if sys.platform == "linux" else ()
    library = _Cache.load(source, needs_vec_isa=False, extra_flags=flags)
    library.new_watch.argtypes, library.new_watch.restype = [ctypes.py_object], ctypes.py_object
    return library
