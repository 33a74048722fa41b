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
        # The kernels of attention read their operands as if the last axis were dense; Inductor makes it so.
        if str(target).startswith("aten._scaled_dot_product"):
            args = tuple(_dense(a) for a in args)
            kwargs = {name: _dense(a) for name, a in kwargs.items()}
        return super().call_function(target, args, kwargs)


def _dense(value: Any) -> Any:
    if not isinstance(value, torch.Tensor) or value.dim() < 4 or value.stride(-1) == 1:
        return value
    return value.contiguous()
