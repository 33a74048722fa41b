"""A captured graph on its way to being rewritten, and the passes before its capture."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch.fx import Graph

from torch_eqsat.cost.calibration import calibration_of, measure_bandwidths
from torch_eqsat.cost.measure.kernels import context_of
from torch_eqsat.cost.measure.probes import time_copy
from torch_eqsat.cost.measure.timer import TIMERS
from torch_eqsat.cost.table import open_table
from torch_eqsat.graph.capture import Capture, capture
from torch_eqsat.graph.copies import copied, undone_on_error
from torch_eqsat.graph.fold import fold_factories
from torch_eqsat.graph.fx import why_untouchable
from torch_eqsat.graph.rebuilding.rebuild import rebuild
from torch_eqsat.graph.strided import replace_contiguous_views
from torch_eqsat.ir.program import Task
from torch_eqsat.planning.found import may_measure
from torch_eqsat.planning.plans.artifacts import adopt_coefficients, offer_coefficients
from torch_eqsat.planning.plans.plan import Plan
from torch_eqsat.planning.plans.program_json import check_fits
from torch_eqsat.planning.setting import Setting
from torch_eqsat.planning.spent import Spent
from torch_eqsat.planning.verdict import GraphInputs, Judge


@dataclass(frozen=True)
class Prepared:
    """A graph after the passes before its capture: the ``setting`` with the machine's calibration, how many terms of
    factory operators were ``folded``, and why the graph has to be left as it is ("" if it may be rewritten)."""

    setting: Setting
    folded: int = 0
    reason: str = ""


def prepare(graph: Graph, setting: Setting, inputs: GraphInputs, *, folds: bool = True) -> Prepared:
    """Run the passes that come before the capture; values stay bitwise the same. Factory operators are folded if
    ``folds``."""
    device = torch.device(setting.device).type
    if device not in TIMERS:
        return Prepared(setting, reason=f"device {device} is not supported ({', '.join(TIMERS)} are)")
    replace_contiguous_views(graph)
    if reason := why_untouchable(graph):
        return Prepared(setting, reason=reason)
    folded = fold_factories(graph, inputs.constants(graph)) if setting.frozen and folds else 0
    table = open_table(context_of(device))
    if setting.options.cache:
        adopt_coefficients(table)
    if may_measure(setting) and device == "cpu":
        measure_bandwidths(table, time_copy)
    if setting.options.cache:
        offer_coefficients(table)
    return Prepared(replace(setting, calibration=calibration_of(table)), folded)


@dataclass(frozen=True)
class Trial:
    """A rewritten copy of a graph: how many calls were ``added``, and how many of the original's are ``gone``."""

    graph: Graph
    added: int
    gone: int

    @property
    def is_original(self) -> bool:
        """Whether nothing changed. Programs that only leave calls out add none: an output is one that was there."""
        return self.added == self.gone == 0


@dataclass(frozen=True)
class Job:
    """A captured graph that is to be planned, judged and rewritten. The graph itself is ``capture.fx``."""

    setting: Setting
    inputs: GraphInputs
    capture: Capture
    spent: Spent
    judge: Judge

    @classmethod
    def of(cls, graph: Graph, setting: Setting, inputs: GraphInputs) -> Job:
        """The job of rewriting ``graph``."""
        spent = Spent()
        judge = Judge(graph, inputs, spent, deterministic=setting.options.deterministic)
        return cls(setting, inputs, _captured(graph, setting, inputs), spent, judge)

    def captured_again(self) -> Job:
        """The same job after an attempt that may have changed the graph's nodes."""
        return replace(self, capture=_captured(self.capture.fx, self.setting, self.inputs))

    @cached_property
    def task(self) -> Task:
        """What is searched."""
        return Task(self.capture.graph, self.capture.parts)

    @cached_property
    def digest(self) -> str:
        """What tells the captured graph from others, in all processes."""
        return self.capture.graph.digest()

    @cached_property
    def repeated(self) -> dict[int, int]:
        """Further calls by their term, of terms that are computed more than once; under freezing Inductor merges
        them."""
        return {} if self.setting.frozen else self.capture.repeated

    @cached_property
    def key(self) -> str:
        """The key of its plan."""
        return plan_key(self.task, self.setting, self.repeated)

    def trial(self, plan: Plan) -> Trial:
        """A copy of the graph, rewritten by ``plan``."""
        capture = self.capture.on_copy(*copied(self.capture.fx))
        added = self._rebuild(plan, capture)
        return Trial(capture.fx, added, _calls(self.capture.fx) - _calls(capture.fx) + added)

    def rewrite(self, plan: Plan) -> None:
        """Rewrite the graph itself; if this raises, it is put back."""
        with undone_on_error(self.capture.fx):
            self._rebuild(plan, self.capture)

    def _rebuild(self, plan: Plan, capture: Capture) -> int:
        check_fits(plan.program, plan.origin, capture.graph)
        return rebuild(capture, plan.program, plan.origin, frozen=self.setting.frozen)


def plan_key(task: Task, setting: Setting, repeated: Mapping[int, int]) -> str:
    """The key of the plan for ``task``, of which some terms are ``repeated``: all that it depends on."""
    parts = (
        context_of(torch.device(setting.device).type),
        setting.calibration,
        setting.parameters,
        sorted(setting.symbolic),
        sorted(repeated.items()),
    )
    return hashlib.sha256(f"{setting.key} {parts!r} {task.graph.digest()}".encode()).hexdigest()


def _calls(graph: Graph) -> int:
    return sum(node.op == "call_function" for node in graph.nodes)


def _captured(graph: Graph, setting: Setting, inputs: GraphInputs) -> Capture:
    placeholders = graph.find_nodes(op="placeholder")
    weights = inputs.weights | inputs.owned
    modest = {placeholders[i] for i in weights if inputs.is_modest(i, frozen=setting.frozen)}
    return capture(graph, inputs.constants(graph), exact=setting.options.exactness == "bitwise", modest=modest)
