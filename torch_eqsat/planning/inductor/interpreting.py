"""Runs a graph call by call in place of Inductor's code: what the backend ``eqsat_mcts_eager`` hands graphs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter

# Inductor's own operators of random numbers and its layouts of convolutions are for its code alone; what others
# compiled must not come from a cache, nor what is interpreted go there.
SETTINGS = {"fallback_random": True, "layout_optimization": False, "force_disable_caches": True}


def interpret(module: GraphModule, inputs: Sequence[Any], **_: Any) -> Callable[[list[Any]], Any]:
    """Stands for ``compile_fx_inner``; the result takes a list of arguments, which it empties."""

    def run(arguments: list[Any]) -> Any:
        values = list(arguments)
        arguments.clear()
        return _Runner(module).run(*values)

    run._boxed_call = True  # type: ignore[attr-defined]
    return run


class _Runner(Interpreter):
    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        # The kernels of attention read their operands as if the last axis were dense, those of oneDNN as if there were
        # no gaps; Inductor makes it so.
        if str(target).startswith("aten._scaled_dot_product"):
            args = tuple(_with_rows(a) for a in args)
            kwargs = {name: _with_rows(a) for name, a in kwargs.items()}
        if str(target).startswith("mkldnn."):
            args = tuple(_without_gaps(a) for a in args)
        return super().call_function(target, args, kwargs)


def _with_rows(value: Any) -> Any:
    if not isinstance(value, torch.Tensor) or value.dim() < 4 or value.stride(-1) == 1:
        return value
    return value.contiguous()


def _without_gaps(value: Any) -> Any:
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return value
    return value if torch.ops.aten.is_non_overlapping_and_dense(value) else value.contiguous()
