"""Small graphs that pay to rewrite, planned without generating code: what faults and damaged plans are tried on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch.fx import Graph, GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from torch_eqsat.options import Options
from torch_eqsat.planning.pipeline import optimize
from torch_eqsat.planning.setting import Setting
from torch_eqsat.planning.verdict import GraphInputs

WRONG = 1e-4  # of the largest element
DEPTH = 40


@dataclass(frozen=True)
class Subject:
    """A function, the shapes of its inputs, and which of them are frozen weights."""

    function: Callable[..., Any]
    shapes: Sequence[tuple[int, ...]]
    weights: frozenset[int] = frozenset()

    def inputs(self) -> list[torch.Tensor]:
        """Equal random numbers in every process."""
        generator = torch.Generator().manual_seed(0)
        return [torch.randn(shape, generator=generator) for shape in self.shapes]


def _linears(x: Any, a: Any, b: Any, c: Any) -> Any:
    return torch.relu((x @ a) @ b + c)[-1:]


def _attention(q: Any, k: Any, v: Any) -> Any:
    return (q @ k.t()) @ v


def _chain(x: Any, a: Any, b: Any) -> Any:
    return (x @ a) @ b


def _deep(x: Any, *weights: Any) -> Any:
    """A graph whose request no pipe holds; its end is what pays to rewrite."""
    *layers, a, b, c = weights
    for layer in layers:
        x = torch.tanh(torch.relu(x @ layer) * 1.5 - x.sum(1, keepdim=True) + torch.tanh(x.mean(1, keepdim=True)))
    return ((x @ a) @ b) @ c


SUBJECTS = {
    "linears": Subject(_linears, ((32, 64), (64, 512), (512, 64), (64,)), frozenset({1, 2, 3})),
    "attention": Subject(_attention, ((512, 16), (512, 16), (512, 16))),
    "chain": Subject(_chain, ((64, 64), (64, 64), (64, 1))),
    "deep": Subject(
        _deep, ((8, 16), *[(16 + i, 17 + i) for i in range(DEPTH)], (16 + DEPTH, 2048), (2048, 2048), (2048, 1))
    ),
}


@dataclass
class Result:
    """What became of a subject: the error against the original (of its largest element), lines in the log, seconds."""

    error: float
    changed: bool = False
    from_plan: bool = False
    plan_key: str = ""
    lines: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_wrong(self) -> bool:
        return not self.error <= WRONG

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Lines(logging.Handler):
    """Keeps the lines that the package logs for a user to see."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        logging.getLogger("torch_eqsat").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def close(self) -> None:
        logging.getLogger("torch_eqsat").removeHandler(self)
        super().close()


class Planner:
    """Plans one subject again and again, each time from the graph as it was."""

    def __init__(self, name: str) -> None:
        self.subject = SUBJECTS[name]
        self.values = self.subject.inputs()
        self._module = make_fx(self.subject.function, tracing_mode="fake")(*self.values)
        self._expected = self._module(*self.values)

    def plan(self, options: Options) -> Result:
        """Optimize a copy of the graph, and run both. Raises what `optimize` raises."""
        module = GraphModule(self._module, _copy(self._module.graph))
        frozen = bool(self.subject.weights)
        setting = Setting(options, frozen, "cpu", torch.get_num_threads(), f"faults {frozen}")
        lines, start = Lines(), time.monotonic()
        try:
            report = optimize(module.graph, setting, GraphInputs(self.subject.weights, self.values))
            seconds = time.monotonic() - start
        finally:
            lines.close()
        module.recompile()
        error = self._error(module(*self.values))
        return Result(error, report.changed, report.from_plan, report.plan_key, lines.lines, seconds)

    def _error(self, actual: Any) -> float:
        if actual.shape != self._expected.shape or actual.dtype != self._expected.dtype:
            return float("inf")
        return float((actual - self._expected).abs().max() / self._expected.abs().max())


def _copy(graph: Graph) -> Graph:
    copy = Graph()
    copy.output(copy.graph_copy(graph, {}))
    return copy
