"""The ways of running a model that the benchmarks compare, a row each."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

Run = Callable[..., Any]
Inputs = tuple[torch.Tensor, ...]
THREADS = "TORCH_EQSAT_BENCH_THREADS"
"""The environment variable that says how many threads models run with."""


def threads() -> int:
    """How many threads models run with: one, unless the environment says otherwise."""
    return int(os.environ.get(THREADS, "1"))


@dataclass(frozen=True, slots=True)
class Variant:
    """A way of running a model. ``settings`` are global ones of Inductor: Dynamo reads freezing while it traces, so
    that Inductor ignores it among the options of a call. ``trains`` says whether a training step can run so."""

    name: str
    family: str
    compile: Callable[[nn.Module, Inputs], Run]
    settings: Mapping[str, bool] = field(default_factory=dict)
    trains: bool = False

    def compiled(self, module: nn.Module, inputs: Inputs) -> Run:
        """``module`` as this variant runs it; the first call may still compile."""
        inductor: Any = importlib.import_module("torch._inductor.config")
        for name, value in self.settings.items():
            setattr(inductor, name, value)
        return self.compile(module, inputs)


def _inductor(**arguments: str) -> Callable[[nn.Module, Inputs], Run]:
    return lambda module, inputs: torch.compile(module, **arguments)


def _eqsat(**options: Any) -> Callable[[nn.Module, Inputs], Run]:
    return lambda module, inputs: torch.compile(module, backend="eqsat_mcts", options=options)


def _peer(name: str) -> Callable[[nn.Module, Inputs], Run]:
    def run(module: nn.Module, inputs: Inputs) -> Run:
        compiled: Run = getattr(importlib.import_module("bench.speed.peers"), name)(module, inputs)
        return compiled

    return run


_ALL = (
    Variant("eager", "eager", lambda module, inputs: module, trains=True),
    Variant("default", "inductor", _inductor(), {"freezing": False}, trains=True),
    Variant("freezing", "inductor", _inductor(), {"freezing": True}),
    Variant("freezing_cpp", "inductor", _inductor(), {"freezing": True, "cpp_wrapper": True}),
    Variant("autotune", "inductor", _inductor(mode="max-autotune"), {"freezing": True}),
    Variant("onnxruntime", "peer", _peer("onnxruntime")),
    Variant("openvino", "peer", _peer("openvino")),
    Variant("eqsat", "eqsat", _eqsat(freezing=True)),
    Variant("eqsat_nofreeze", "eqsat", _eqsat(), trains=True),
    Variant("eqsat_cpp", "eqsat", _eqsat(freezing=True, cpp_wrapper=True)),
)

VARIANTS = {variant.name: variant for variant in _ALL}
"""The variants by name, in the order in which they run."""
