"""Small functions, timed as Inductor compiles them or as they are: what prices of fusible work are fitted to."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch

from torch_eqsat.cost.kernel import Measurement
from torch_eqsat.cost.measure.kernels import plain_torch
from torch_eqsat.cost.measure.timer import CpuTimer, Timer
from torch_eqsat.counters import count_timing

COPY_BUDGET_MS = 10.0

# Not known to be a permutation when a function is compiled, and so not written as arithmetic.
_COLUMNS = torch.arange(511, -1, -1)

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "relu": torch.relu,
    "cheap": lambda x: torch.relu((x * 1.1 + 0.3).abs() * 0.9 - 0.2),
    "reciprocal": torch.reciprocal,
    "sqrt": torch.sqrt,
    "exp": torch.exp,
    "sigmoid": torch.sigmoid,
    "log": torch.log,
    "erf": torch.erf,
    "tanh": torch.tanh,
    "pow": lambda x: x**2.5,
    "sum of rows": lambda x: x.view(-1, 512).sum(1),
    "sum of columns": lambda x: x.view(-1, 512).sum(0),
    "maximum of rows": lambda x: x.view(-1, 512).amax(1),
    "gather of columns": lambda x: x.view(-1, 512)[:, _COLUMNS],
    "average pool": lambda x: torch.nn.functional.avg_pool2d(x.view(1, 16, 32, -1), 3, 1, 1),
}


class CompiledProbe:
    """Times functions on the CPU as Inductor compiles them, less a call of as many copies over one element each."""

    def __init__(self, timer: Timer, compile: Callable[..., Any] = torch.compile) -> None:
        self._timer = timer
        self._compile = compile
        self._empty_ms = cache(lambda copies: self._time("relu", 1, copies).ms)

    def __call__(self, name: str, elements: int, copies: int) -> Measurement:
        """The time in ms of one of ``copies`` copies of a function over ``elements`` float32 elements."""
        found = self._time(name, elements, copies)
        return Measurement(max(1e-6, (found.ms - self._empty_ms(copies)) / copies), found.spread, found.repeats)

    def _time(self, name: str, elements: int, copies: int) -> Measurement:
        function = FUNCTIONS[name]
        torch._dynamo.reset()
        compiled = self._compile(lambda *inputs: [function(x) for x in inputs])
        inputs = [torch.rand(elements) + 0.5 for _ in range(copies)]
        with torch.no_grad():
            call = partial(compiled, *inputs)
            call()
            # What disturbs makes it slower: the best of three.
            return min((self._timer.time([call]) for _ in range(3)), key=lambda found: found.ms)


def time_copy(elements: int) -> Measurement:
    """The time in ms of torch's own kernel that reads so many float32 elements on the CPU and writes as many, less that
    of a call. What is written to is there before: a fresh result of 32 MiB or more costs its page faults."""
    count_timing("copy")
    with plain_torch("cpu"):
        timer, x = CpuTimer(COPY_BUDGET_MS), torch.ones(elements)
        y = torch.ones_like(x)
        found = min((timer.time([partial(torch.neg, x, out=y)]) for _ in range(3)), key=lambda found: found.ms)
        empty_ms = timer.time([partial(torch.neg, x[:1], out=y[:1])]).ms
    return Measurement(max(1e-6, found.ms - empty_ms), found.spread, found.repeats)
