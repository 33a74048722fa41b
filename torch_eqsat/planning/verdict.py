"""Whether a plan may be used: the rewritten graph is judged on this process's weights and inputs, once for each set of
weights; of a plan whose program is refused those regions are kept that are right."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import Graph, GraphModule
from torch.fx import Node as FxNode

from torch_eqsat.graph.copies import copy_of
from torch_eqsat.graph.facts import is_modest
from torch_eqsat.graph.replay import fits_in_memory
from torch_eqsat.planning.plans.plan import Plan
from torch_eqsat.planning.plans.program_json import encode_program
from torch_eqsat.planning.spent import Spent
from torch_eqsat.verification.hard_inputs import sample_inputs
from torch_eqsat.verification.judge import HARD_SECONDS, OriginalFaultError, Progress, disagreement

# For finding the regions that a refused program is wrong in; what was not looked at by then is left as it is.
NARROWING_SECONDS = 60.0
UNDECIDED = ("it is too large to be checked", "it cannot be checked", "there was no time")
"""How problems begin that are none of a plan."""
VERDICTS = 32  # that a plan remembers


@dataclass(frozen=True)
class GraphInputs:
    """What is known of a graph's placeholders: which of them hold weights that are constants, real values for the first
    of them (or none), and which hold weights at all (of which no hard inputs are made)."""

    weights: frozenset[int]
    values: Sequence[Any]
    owned: frozenset[int] = frozenset()
    _modest: dict[int, bool] = field(default_factory=dict, repr=False)
    _digest: list[str] = field(default_factory=list, repr=False)

    def is_modest(self, index: int, *, frozen: bool) -> bool:
        """Whether the weight at ``index`` is finite and of no large numbers. Of those that are not ``frozen`` that is
        said of parameters alone: they stay so, while a buffer may hold a mask."""
        if index not in self._modest:
            value = self.values[index] if index < len(self.values) else None
            kind = torch.Tensor if frozen else torch.nn.Parameter
            self._modest[index] = isinstance(value, kind) and is_modest(value)
        return self._modest[index]

    def digest_of_weights(self) -> str:
        """A hash of the values of all weights (SHA-256), computed once."""
        if not self._digest:
            digest = hashlib.sha256()
            with unset_fake_temporarily(), torch.no_grad():
                for index in sorted(self.weights | self.owned):
                    if index < len(self.values) and isinstance(value := self.values[index], torch.Tensor):
                        digest.update(f"{index} {value.dtype} {tuple(value.shape)}".encode())
                        digest.update(_bytes(value))
            self._digest.append(digest.hexdigest())
        return self._digest[0]

    def constants(self, graph: Graph) -> set[FxNode]:
        """The placeholders of ``graph`` that hold weights that are constants."""
        return {node for i, node in enumerate(graph.find_nodes(op="placeholder")) if i in self.weights}

    def live(self, count: int) -> list[int]:
        """The placeholders, of ``count``, that hold no weights."""
        return [i for i in range(count) if i not in self.weights and i not in self.owned]


def judge(
    original: Graph,
    rewritten: Graph,
    inputs: GraphInputs,
    *,
    deterministic: bool = False,
    progress: Progress | None = None,
) -> str:
    """Why ``rewritten`` must not be used, in a line; "" when it may. ``original`` is not changed. What ``progress``
    names is not tried again."""
    if not fits_in_memory(original):
        return "it is too large to be checked in float64 here"
    first, second = (GraphModule(graph.owning_module, graph) for graph in (original, rewritten))
    problem = ""
    for zeros in (False, True):
        values = sample_inputs(original, inputs.values, zeros=zeros)
        try:
            seconds = float("inf") if deterministic else HARD_SECONDS
            return disagreement(first, second, values, inputs.live(len(values)), seconds, progress)
        except OriginalFaultError as error:
            problem = f"it cannot be checked, for the original does not run by itself: {error}"
    return problem


def fingerprint(plan: Plan, inputs: GraphInputs) -> str:
    """What a verdict on ``plan`` depends on: its program and the values of weights (SHA-256)."""
    digest = hashlib.sha256(json.dumps(encode_program(plan.program, plan.origin), sort_keys=True).encode())
    digest.update(inputs.digest_of_weights().encode())
    return digest.hexdigest()


def _bytes(value: torch.Tensor) -> bytes:
    plain = value.detach().cpu().contiguous().flatten()
    return plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""


@dataclass(frozen=True)
class Verdict:
    """Why a plan must not be used, "" if it may, and the fingerprint that this is true for. If time cut it off,
    ``begun`` names the hard inputs that were tried."""

    key: str
    problem: str
    begun: tuple[str, ...] | None = None

    def noted_in(self, plan: Plan) -> Plan:
        """``plan`` with the verdict, in place of the oldest one where there are many; one that is for now alone is not
        noted, and of one that was cut off how far it came: the next process goes on from there."""
        if self.problem.startswith(UNDECIDED):
            return plan
        begun = {key: tried for key, tried in plan.begun.items() if key != self.key}
        if self.begun is not None:
            begun = dict([*begun.items(), (self.key, self.begun)][-VERDICTS:])
            return replace(plan, begun=begun)
        verdicts = {**plan.verdicts, self.key: self.problem}
        return replace(plan, verdicts=dict(list(verdicts.items())[-VERDICTS:]), begun=begun)


class Judge:
    """Judges plans for one graph, each program once."""

    def __init__(self, graph: Graph, inputs: GraphInputs, spent: Spent, *, deterministic: bool) -> None:
        self._graph, self._inputs, self._spent, self._deterministic = graph, inputs, spent, deterministic
        self._verdicts: dict[str, Verdict] = {}  # by fingerprint: of the regions that are kept a plan is made anew

    def __call__(self, plan: Plan, rewritten: Graph) -> Verdict:
        """The verdict on ``plan``, by which the graph was ``rewritten``: as the plan remembers it, or found now."""
        with self._spent.judging():
            key = fingerprint(plan, self._inputs)
            if key not in self._verdicts:
                self._verdicts[key] = self._remembered(key, plan) or self._found(key, plan, rewritten)
        return self._verdicts[key]

    @staticmethod
    def _remembered(key: str, plan: Plan) -> Verdict | None:
        return Verdict(key, plan.verdicts[key]) if key in plan.verdicts else None

    def _found(self, key: str, plan: Plan, rewritten: Graph) -> Verdict:
        progress = Progress(list(plan.begun.get(key, ())))
        given = copy_of(self._graph), rewritten, self._inputs
        problem = judge(*given, deterministic=self._deterministic, progress=progress)
        return Verdict(key, problem, tuple(progress.tried) if progress.left else None)


def narrowed(
    groups: Sequence[str], problem_of: Callable[[Collection[str]], str], seconds: float = NARROWING_SECONDS
) -> tuple[list[str], dict[str, str]]:
    """The largest choice of ``groups`` found in ``seconds`` that has no problem, and of each other group why it was
    left out.

    All groups together have a problem. Halves are tried, then their halves: of n groups of which one is wrong about
    2 log₂ n times.
    """
    deadline = time.monotonic() + seconds
    kept: list[str] = []
    refused: dict[str, str] = {}

    def keep(some: Sequence[str], known: str = "") -> None:
        late = time.monotonic() > deadline
        problem = known or (f"{UNDECIDED[-1]} to look for what is wrong" if late else problem_of([*kept, *some]))
        if not problem:
            kept.extend(some)
        elif len(some) == 1 or late:
            refused.update(dict.fromkeys(some, problem))
        else:
            middle = len(some) // 2
            keep(some[:middle])
            keep(some[middle:])

    if len(groups) > 1:
        middle = len(groups) // 2
        keep(groups[:middle])
        keep(groups[middle:])
    else:
        refused.update(dict.fromkeys(groups, problem_of(groups)))
    return kept, refused
