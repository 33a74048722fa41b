"""Graphs compiled by Inductor as they would run, and timed against each other on real values.

This happens in the middle of the compilation of one of them, inside a pass: each candidate is a copy, compiled in a
tracing context of its own under the user's settings, without the passes that ran before.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import torch
from torch._dispatch.python import no_python_dispatcher
from torch._functorch import config as functorch_config
from torch._guards import tracing
from torch._inductor import config as inductor_config
from torch._inductor.compile_fx import compile_fx
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch.fx import Graph, GraphModule
from torch.utils._python_dispatch import _disable_current_modes

from torch_eqsat.cost.measure.timer import Call, Clock, sample_ms, summary
from torch_eqsat.counters import count_timing
from torch_eqsat.errors import EqsatError
from torch_eqsat.graph.calls import written_inputs
from torch_eqsat.graph.copies import copy_of
from torch_eqsat.graph.fx import STORED, mark_stored

# The samples are cut into blocks, and a candidate is faster only if it is in each of them: of two that are equally
# fast one wins all six by chance in 3 % of the contests. Unlike a spread this needs no model of the noise.
BLOCKS = 6
FEWEST_ROUNDS = 1
MOST_ROUNDS = 60
# A low quantile, as for kernels: whatever disturbs a graph makes it slower.
QUANTILE = 0.2
SAMPLE_MS = 1.0


@dataclass(frozen=True)
class Contest:
    """The times of candidates: ``ms[i]`` is that of candidate i over all rounds, ``blocks[i]`` its times (ms) in each
    block of rounds."""

    ms: tuple[float, ...]
    blocks: tuple[tuple[float, ...], ...]

    def faster(self, candidate: int, other: int) -> bool:
        """Whether ``candidate`` was faster than ``other`` in every block.

        >>> Contest((1.0, 2.0), ((1.0, 1.1), (2.0, 1.0))).faster(0, 1)
        False
        """
        return all(a < b for a, b in zip(self.blocks[candidate], self.blocks[other], strict=True))


def contest(calls: Sequence[Call], seconds: float, clock: Clock, wall: Clock) -> Contest:
    """Time ``calls`` in turn for about ``seconds`` by ``clock`` (s); ``wall`` (s) says how long it took.

    Each call runs once before, unmeasured. A short one is repeated within a sample of about :data:`SAMPLE_MS`. All
    get at least ``BLOCKS * FEWEST_ROUNDS`` samples, whatever ``seconds`` says.
    """
    for call in calls:
        call()
    start = wall()
    repeats = [max(1, math.ceil(SAMPLE_MS / max(sample_ms([call], 1, clock), 1e-3))) for call in calls]
    once = max(wall() - start, 1e-9)  # of all calls, which is less than a round where calls are repeated
    samples: list[list[list[float]]] = [[[] for _ in range(BLOCKS)] for _ in calls]
    for block in range(BLOCKS):
        end = start + once + seconds * (block + 1) / BLOCKS
        rounds = 0
        while rounds < FEWEST_ROUNDS or (rounds < MOST_ROUNDS and wall() < end):
            # Every other round backwards: what runs second finds the caches as the first one left them.
            order = range(len(calls)) if rounds % 2 == 0 else range(len(calls) - 1, -1, -1)
            for i in order:
                samples[i][block].append(sample_ms([calls[i]], repeats[i], clock))
            rounds += 1
    return Contest(
        tuple(summary([ms for block in blocks for ms in block], QUANTILE).ms for blocks in samples),
        tuple(tuple(summary(block, QUANTILE).ms for block in blocks) for blocks in samples),
    )


class _MarkStored(CustomGraphPass):
    """Marks again what is to be stored: of a node's metadata, tracing keeps ``custom`` alone."""

    def uuid(self) -> str:
        return STORED

    def __call__(self, graph: Graph) -> None:
        for node in graph.nodes:
            if STORED in node.meta.get("custom", ()):
                mark_stored(node)


# The user's passes of these hooks have run on the graphs, or are written for another kind of graph.
_PASSES = {"joint_custom_pre_pass": _MarkStored(), "pre_grad_custom_pass": None}


class NoRaceError(EqsatError):
    """The graphs cannot be timed here; the message says why in a line."""


def race(graphs: Sequence[Graph], weights: AbstractSet[int], values: Sequence[Any], seconds: float) -> Contest:
    """Compile ``graphs``, which have the same placeholders, and time them in turn for about ``seconds``.

    ``values`` are real values for all placeholders; they are not changed. Under freezing the placeholders in
    ``weights`` are constants. Raises NoRaceError for graphs that cannot run by themselves, and what Inductor raises.
    """
    _check(graphs[0])
    with _outside():
        for _ in graphs:
            count_timing("graph")
        calls = [_compiled(graph, weights, values) for graph in graphs]
        # All work of one thread is done by the calling one; its own time does not count that of other programs.
        gpu = torch.cuda.is_initialized()
        clock = time.thread_time if torch.get_num_threads() == 1 and not gpu else time.perf_counter
        return contest([_waiting(call) for call in calls] if gpu else calls, seconds, clock, time.perf_counter)


def _check(graph: Graph) -> None:
    placeholders = graph.find_nodes(op="placeholder")
    if any("tangents" in str(node.target) for node in placeholders):
        raise NoRaceError("a graph of forward and backward is cut in two later, and does not run as it is")
    for node in placeholders:
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor) or any(type(n) is not int for n in value.shape):
            raise NoRaceError("the graph has symbolic sizes")


@contextlib.contextmanager
def _outside() -> Iterator[None]:
    """As if no compilation were going on: no fake tensors, no context of the traced function, no gradients."""
    with (
        tracing(None),
        _disable_current_modes(),
        no_python_dispatcher(),
        torch.no_grad(),
        torch._C._DisableAutocast(),
        inductor_config.patch(_PASSES),
        functorch_config.patch(enable_autograd_cache=False),
    ):
        yield


def _compiled(graph: Graph, weights: AbstractSet[int], values: Sequence[Any]) -> Call:
    """A call of the compiled graph on copies of ``values``; frozen weights are attributes."""
    frozen = weights if inductor_config.freezing else frozenset()
    module = GraphModule(graph.owning_module, copy_of(graph))
    for index, node in enumerate(module.graph.find_nodes(op="placeholder")):
        if index not in frozen:
            continue
        name = f"_eqsat_constant_{index}"
        module.register_buffer(name, values[index].detach())
        with module.graph.inserting_before(node):
            attribute = module.graph.get_attr(name)
        node.replace_all_uses_with(attribute)
        module.graph.erase_node(node)
    for node in module.graph.nodes:
        if STORED in node.meta:
            node.meta["custom"] = {**node.meta.get("custom", {}), STORED: True}
    module.recompile()
    written = _written(module.graph)
    inputs = [_own(value) for index, value in enumerate(values) if index not in frozen]
    run = compile_fx(module, list(inputs))
    return _from_the_start(run, inputs, written)


def _written(graph: Graph) -> list[int]:
    """The placeholders that ``graph`` writes into."""
    number = {node: index for index, node in enumerate(graph.find_nodes(op="placeholder"))}
    return [number[node] for node in written_inputs(graph)]


def _from_the_start(run: Callable[..., Any], inputs: Sequence[Any], written: Sequence[int]) -> Call:
    """A call that finds in what it writes to what the first call did: the position of a static cache ran out of bounds.
    Both graphs are timed with this."""
    pairs = [(inputs[i], inputs[i].clone()) for i in written]

    def call() -> None:
        for target, value in pairs:
            target.copy_(value)
        run(*inputs)

    return call


def _own(value: Any) -> Any:
    """A copy that a graph may write into."""
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _waiting(call: Call) -> Call:
    def run() -> None:
        call()
        torch.cuda.synchronize()

    return run
