"""Changes of weights that are constants: what autograd counts of them, and the kinds that it does not count."""

from __future__ import annotations

import ctypes
import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet, ref

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils.weak import WeakIdKeyDictionary

MOST_CHANGES = 3
"""Of a weight that is a constant; Dynamo gives a model up that it compiled 8 times."""
NOTE = "_eqsat_constant"
"""The attribute of a weight that holds its note."""


@dataclass(frozen=True)
class Standing:
    """How a weight stands: its storage (weakly: no other gets its address, and no memory is kept), the address of its
    values, its version, 0 or None for what it does not have, and what is compared of its content."""

    storage: StorageWeakRef | None
    address: int
    version: int
    content: bytes

    def lies_at(self, other: Standing) -> bool:
        """Whether both are of one place."""
        return (self.storage, self.address) == (other.storage, other.address)


class Note:
    """What a weight itself says of having been a constant: how it ``stood`` (None if not yet), and how many ``changes``
    it saw since; ``values`` if contents are compared. A copy of the weight, or one from a file, gets another.

    ``checks`` holds those of compiled graphs, where guards find them, and ``held`` the weight, if there is no module to
    find it by.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self.owner = id(weight)
        self.stood: Standing | None = None
        self.changes = 0
        self.values = False
        self.checks = SimpleNamespace()
        self.held: dict[str, torch.Tensor] = {}

    def __reduce__(self) -> Any:
        return OrderedDict, ()


_notes: WeakSet[Note] = WeakSet()
_last = WeakIdKeyDictionary()
"""By module, table and name: the note of the constant that was last found there, and its changes."""


def note_of(weight: torch.Tensor) -> Note:
    """The note on ``weight``, which is put there if there is none."""
    note = getattr(weight, NOTE, None)
    if not isinstance(note, Note) or note.owner != id(weight):
        note = Note(weight)
        _notes.add(note)
        setattr(weight, NOTE, note)
    return note


def forget_checks() -> None:
    """Keep no checks of weights that were constants, once there are no compiled graphs any more."""
    for note in _notes:
        note.checks, note.held = SimpleNamespace(), {}


def note_place(owner: Any, table: str, key: str, weight: torch.Tensor) -> None:
    """Note that the constant ``weight`` was found at ``vars(owner)[table][key]``."""
    note = note_of(weight)
    _last.setdefault(owner, {})[table, key] = ref(note), note.changes


def count_replacement(owner: Any, table: str, key: str, weight: torch.Tensor) -> None:
    """Count a change of ``weight`` if it took the place of another constant: a model may give a buffer a new tensor in
    each call."""
    note, (before, changes) = note_of(weight), _last.get(owner, {}).get((table, key), (None, 0))
    if before is not None and before() is not note:
        note.changes = max(note.changes, changes + 1)


def note_constant(weight: torch.Tensor, *, values: bool = False) -> None:
    """Note on ``weight`` itself that it is a constant from now on, whose ``values`` are compared if so asked."""
    count_move(weight)
    note = note_of(weight)
    if values and has_memory(weight) and not note.values:
        note.values = True
        if note.stood is not None:  # what was compared until now is another thing
            note.stood = replace(note.stood, content=content_of(weight, values=True))
    stands = _standing(weight)
    note.changes += note.stood not in (None, stands)
    note.stood = stands


def keeps_changing(weight: torch.Tensor) -> bool:
    """Whether ``weight`` changed too often while it was a constant."""
    note = note_of(weight)
    return note.changes + (note.stood not in (None, _standing(weight))) >= MOST_CHANGES


def count_move(weight: torch.Tensor) -> None:
    """Count a change of a constant that lies elsewhere now: conversions of a model put other memory behind its
    parameters, and what was compiled before is not right even once the old memory is back."""
    stood, stands = note_of(weight).stood, _standing(weight)
    if stood is None or weight.is_inference():
        return
    if stood.version == stands.version and not stood.lies_at(stands):
        torch.autograd.graph.increment_version(weight)


@cache
def count_fused_steps() -> None:
    """Have steps of fused optimizers counted from now on: their kernels write into parameters and do not say so (torch
    2.14.1)."""
    register_optimizer_step_post_hook(_count_step)


@torch.compiler.disable  # type: ignore[untyped-decorator]  # of a compiled step too
def _count_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    fused = [p for group in optimizer.param_groups if group.get("fused") for p in group["params"]]
    if changed := [p for p in fused if hasattr(p, NOTE) and p.grad is not None]:
        torch.autograd.graph.increment_version(changed)


def has_memory(weight: torch.Tensor) -> bool:
    """Whether the values of ``weight`` lie at one address."""
    return weight.layout is torch.strided and not is_traceable_wrapper_subclass(weight)


def content_of(weight: torch.Tensor, *, values: bool = False) -> bytes:
    """A digest of the values of ``weight``, or else the one in the middle: the first row of an embedding is often
    never written. Nothing of what this process cannot read."""
    if values:
        plain = weight.detach().resolve_conj().resolve_neg().cpu().contiguous().flatten()
        return hashlib.blake2b(plain.view(torch.uint8).numpy() if plain.numel() else b"").digest()
    if not has_memory(weight) or weight.device.type != "cpu" or weight.numel() == 0 or weight.data_ptr() == 0:
        return b""
    place = sum((n // 2) * stride for n, stride in zip(weight.shape, weight.stride(), strict=True))
    return ctypes.string_at(weight.data_ptr() + place * weight.element_size(), weight.element_size())


def _standing(weight: torch.Tensor) -> Standing:
    storage = StorageWeakRef(weight.untyped_storage()) if has_memory(weight) else None
    address = weight.data_ptr() if has_memory(weight) else 0
    content = content_of(weight, values=note_of(weight).values)
    return Standing(storage, address, 0 if weight.is_inference() else weight._version, content)
