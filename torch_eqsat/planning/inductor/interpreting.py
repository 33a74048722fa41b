"""Runs a graph call by call in place of Inductor's code: what the backend ``eqsat_mcts_eager`` hands graphs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._inductor.compile_fx import record_original_output_strides
from torch.fx import GraphModule, Interpreter

# Inductor's own operators of random numbers and its layouts of convolutions are for its code alone; what others
# compiled must not come from a cache, nor what is interpreted go there.
SETTINGS = {"fallback_random": True, "layout_optimization": False, "force_disable_caches": True}


def interpret(module: GraphModule, inputs: Sequence[Any], **_: Any) -> Callable[[list[Any]], Any]:
    """Stands for ``compile_fx_inner``; the result takes a list of arguments, which it empties."""

    record_original_output_strides(module)  # which Inductor does at this point too

    def run(arguments: list[Any]) -> Any:
        values = list(arguments)
        arguments.clear()
        return _laid_out(_Runner(module).run(*values), module)

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


def _laid_out(results: Any, module: GraphModule) -> Any:
    """``results``, those that the user gets with the strides that they had as captured, where these are numbers:
    convolutions with packed weights give images with channels last. Inductor's code does it too."""
    if not isinstance(results, (list, tuple)):
        return results
    meta = module.graph.output_node().meta
    strides, visible = meta["original_output_strides"], meta.get("user_visible_output_idxs", ())
    return [_with_strides(value, strides[i]) if i in visible else value for i, value in enumerate(results)]


def _with_strides(value: Any, strides: Sequence[Any] | None) -> Any:
    if not isinstance(value, torch.Tensor) or strides is None or any(type(s) is not int for s in strides):
        return value
    axes = [(s, t) for n, s, t in zip(value.shape, value.stride(), strides, strict=True) if n != 1]
    if all(s == t for s, t in axes) or value.numel() == 0 or any(t == 0 for _, t in axes):  # elements with one address
        return value
    return torch.empty_strided(value.shape, strides, dtype=value.dtype, device=value.device).copy_(value)


def _with_rows(value: Any) -> Any:
    if not isinstance(value, torch.Tensor) or value.dim() < 4 or value.stride(-1) == 1:
        return value
    return value.contiguous()


def _without_gaps(value: Any) -> Any:
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
        return value
    return value if torch.ops.aten.is_non_overlapping_and_dense(value) else value.contiguous()
