"""Changes of weights that are constants, as autograd's counters tell them, and two kinds that it does not count."""

from __future__ import annotations

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
    """What a weight itself says of having been a constant: at which ``version`` (None if not yet), how many ``changes``
    it saw since, where it lay, and whose it is, for :class:`~torch_eqsat.planning.inductor.watching.Watch`.

    Compiled graphs guard on the identity of the note in place of that of the weight: it goes with the numbers where
    tensors are swapped (`torch.utils.swap_tensors`, which refuses tensors with weak references, and guards on identity
    are such). A copy of the weight, or one from a file, has none.
    """

    def __init__(self) -> None:
        self.version: int | None = None
        self.changes = self.address = 0
        self.owner: torch.Tensor | None = None

    def __reduce__(self) -> Any:
        return OrderedDict, ()


def note_of(weight: torch.Tensor) -> Note:
    """The note on ``weight``, which is put there if there is none."""
    note = getattr(weight, NOTE, None)
    if not isinstance(note, Note):
        note = Note()
        setattr(weight, NOTE, note)
    return note


def note_version(weight: torch.Tensor) -> None:
    """Note on ``weight`` itself that it is a constant from now on."""
    note = note_of(weight)
    note.changes += note.version not in (None, weight._version)
    note.version, note.address = weight._version, _address(weight)


def keeps_changing(weight: torch.Tensor) -> bool:
    """Whether ``weight`` changed too often while it was a constant."""
    note = note_of(weight)
    changed = note.version is not None and not weight.is_inference() and weight._version != note.version
    return note.changes + changed >= MOST_CHANGES


def count_move(weight: torch.Tensor) -> None:
    """Count a change of a constant that lies elsewhere now: conversions of a model put other memory behind its
    parameters, and what was compiled before is not right even once the old dtype is back."""
    note = note_of(weight)
    if note.version is None or weight.is_inference() or weight._version != note.version:
        return
    if _address(weight) != note.address:
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


def _address(weight: torch.Tensor) -> int:
    return weight.data_ptr() if weight.layout is torch.strided else 0
