"""Changes of weights that are constants, as autograd's counters tell them, and the kinds that it does not count."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from functools import cache
from typing import Any

import torch
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

MOST_CHANGES = 3
"""Of a weight that is a constant; Dynamo gives a model up that it compiled 8 times."""
NOTE = "_eqsat_constant"
"""The attribute of a weight that holds its note."""


class Note:
    """What a weight itself says of having been a constant: where and at which version it ``stood`` (None if not yet),
    and how many ``changes`` it saw since. It keeps the memory where it lay, so that none that is put behind the weight
    later has the address of what was compiled.

    Compiled graphs guard on the identity of the note in place of that of the weight: it goes with the numbers where
    tensors are swapped (`torch.utils.swap_tensors`, which refuses tensors with weak references, and guards on identity
    are such). A copy of the weight, or one from a file, has none.
    """

    def __init__(self) -> None:
        self.stood: tuple[int, int] | None = None
        self.changes = 0
        self.memory: list[torch.UntypedStorage] = []
        self.owner: torch.Tensor | None = None

    def content(self) -> str:
        """A digest of the values of the weight ``owner``."""
        assert self.owner is not None, "only weights whose values are compared are asked"
        plain = self.owner.detach().resolve_conj().resolve_neg().cpu().contiguous().flatten()
        return hashlib.blake2b(plain.view(torch.uint8).numpy() if plain.numel() else b"").hexdigest()

    def __reduce__(self) -> Any:
        return OrderedDict, ()


def note_of(weight: torch.Tensor) -> Note:
    """The note on ``weight``, which is put there if there is none."""
    note = getattr(weight, NOTE, None)
    if not isinstance(note, Note):
        note = Note()
        setattr(weight, NOTE, note)
    return note


def note_constant(weight: torch.Tensor, *, values: bool = False) -> None:
    """Note on ``weight`` itself that it is a constant from now on, and, with ``values``, whose values it has."""
    note, stands = note_of(weight), _standing(weight)
    note.changes += note.stood not in (None, stands)
    note.stood = stands
    note.owner = weight if values else note.owner
    if has_memory(weight):
        # Each, for an inference tensor: nothing else tells graphs that were compiled before the last change.
        note.memory = [*(note.memory if weight.is_inference() else ()), weight.untyped_storage()]


def keeps_changing(weight: torch.Tensor) -> bool:
    """Whether ``weight`` changed too often while it was a constant."""
    note = note_of(weight)
    return note.changes + (note.stood not in (None, _standing(weight))) >= MOST_CHANGES


def count_move(weight: torch.Tensor) -> None:
    """Count a change of a constant that lies elsewhere now: conversions of a model put other memory behind its
    parameters, and what was compiled before is not right even once the old dtype is back."""
    stood, (address, version) = note_of(weight).stood, _standing(weight)
    if stood is not None and stood[1] == version and stood[0] != address and not weight.is_inference():
        torch.autograd.graph.increment_version(weight)


def has_memory(weight: torch.Tensor) -> bool:
    """Whether the values of ``weight`` lie at one address."""
    return type(weight) in (torch.Tensor, torch.nn.Parameter) and weight.layout is torch.strided


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


def _standing(weight: torch.Tensor) -> tuple[int, int]:
    """The address and the version of ``weight``, 0 for what it does not have."""
    return weight.data_ptr() if has_memory(weight) else 0, 0 if weight.is_inference() else weight._version
