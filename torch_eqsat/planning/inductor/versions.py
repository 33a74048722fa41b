"""Changes of weights that are constants, as autograd's counters tell them, and two kinds that it does not count."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

MOST_CHANGES = 3
"""Of a weight that is a constant; Dynamo gives a model up that it compiled 8 times."""
_NOTE = "_eqsat_constant_at"


class _Note(NamedTuple):
    """At which version a weight became a constant, how often it changed while it was one, and where it lay."""

    version: int
    changes: int
    address: int


def note_version(weight: torch.Tensor) -> None:
    """Note on ``weight`` itself that it is a constant from now on."""
    before = getattr(weight, _NOTE, None)
    changes = before.changes + (weight._version != before.version) if before else 0
    setattr(weight, _NOTE, _Note(weight._version, changes, _address(weight)))


def keeps_changing(weight: torch.Tensor) -> bool:
    """Whether ``weight`` changed too often while it was a constant."""
    note = getattr(weight, _NOTE, None)
    if note is None:
        return False
    return bool(note.changes + (not weight.is_inference() and weight._version != note.version) >= MOST_CHANGES)


def count_move(weight: torch.Tensor) -> None:
    """Count a change of a constant that lies elsewhere now: conversions of a model put other memory behind its
    parameters, and what was compiled before is not right even once the old dtype is back."""
    note = getattr(weight, _NOTE, None)
    if note is None or weight.is_inference() or weight._version != note.version:
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
    if changed := [p for p in fused if hasattr(p, _NOTE) and p.grad is not None]:
        torch.autograd.graph.increment_version(changed)


def _address(weight: torch.Tensor) -> int:
    return weight.data_ptr() if weight.layout is torch.strided else 0
