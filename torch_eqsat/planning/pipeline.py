"""One graph through the whole way: capture, plan or search, judge, rebuild."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import torch
from torch.fx import Graph, GraphModule
from torch.fx import Node as FxNode

from torch_eqsat.cost.calibration import calibration_of, measure_bandwidths
from torch_eqsat.cost.measure.kernels import context_of
from torch_eqsat.cost.measure.probes import time_copy
from torch_eqsat.cost.table import open_table
from torch_eqsat.cost.targets import HERE
from torch_eqsat.errors import RebuildError
from torch_eqsat.graph.capture import Capture, capture
from torch_eqsat.graph.fold import fold_factories
from torch_eqsat.graph.fx import why_untouchable
from torch_eqsat.graph.rebuild import rebuild
from torch_eqsat.graph.strided import replace_contiguous_views
from torch_eqsat.ir.program import Task
from torch_eqsat.planning.disturbance import note_disturbance
from torch_eqsat.planning.found import Found, may_measure, search_regions
from torch_eqsat.planning.plan import Plan
from torch_eqsat.planning.plan_store import load_plan, store_plan
from torch_eqsat.planning.planner import Setting
from torch_eqsat.planning.program_json import check_fits
from torch_eqsat.planning.race import race
from torch_eqsat.planning.ranks import Meeting, meet
from torch_eqsat.planning.spent import Spent
from torch_eqsat.planning.verdict import (
    NARROWING_SECONDS,
    UNDECIDED,
    GraphInputs,
    fingerprint,
    judge,
    narrowed,
    remembering,
)
from torch_eqsat.report import GraphReport, RaceReport
from torch_eqsat.search.worker.pool import OVERRUN_SECONDS
from torch_eqsat.verification.hard_inputs import sample_inputs

logger = logging.getLogger(__name__)

DEVICES = ("cpu", "cuda")  # those that there are prices and timers for
RACE_SECONDS = 3.0  # for timing the original and the rewritten graph in turn


def optimize(graph: Graph, setting: Setting, inputs: GraphInputs) -> GraphReport:
    """Rewrite ``graph`` in place where that is predicted to pay and checked to be right.

    Until everything is decided and checked, work is done on copies; an exception leaves ``graph`` as it was (but for
    folded factory operators and reads of contiguous memory made views, whose values are bitwise the same).
    """
    target = "" if setting.options.target == HERE else setting.options.target
    report = GraphReport(sum(n.op == "call_function" for n in graph.nodes), setting.frozen, target=target)
    device = torch.device(setting.device).type
    if device not in DEVICES:
        report.decision = f"left as it is: device {device} is not supported ({', '.join(DEVICES)} are)"
        return report
    replace_contiguous_views(graph)
    if reason := why_untouchable(graph):
        report.decision = f"left as it is: {reason}"
        return report
    if setting.frozen:
        report.folded = fold_factories(graph, _weights(graph, inputs))
    table = open_table(context_of(device))
    if may_measure(setting) and device == "cpu":
        measure_bandwidths(table, time_copy)
    setting = replace(setting, calibration=calibration_of(table))
    planning = _Planning(graph, setting, inputs, report)
    planning.run()
    return replace(report, **vars(planning.spent))


class _Planning:
    """One graph's way from its plan to its rewriting. ``undisturbed`` says whether a search ended by itself."""

    def __init__(self, graph: Graph, setting: Setting, inputs: GraphInputs, report: GraphReport) -> None:
        self.graph, self.setting, self.inputs, self.report = graph, setting, inputs, report
        captured = self._capture(_copy(graph))
        self.task = Task(captured.graph, captured.parts)
        report.plan_key = _plan_key(self.task, setting)
        self.spent = Spent()
        self.undisturbed = False
        self._judged: dict[str, str] = {}  # verdicts by fingerprint: of the regions that are kept a plan is made anew

    def run(self) -> None:
        """Use the stored plan, or make one; with other ranks together."""
        options = self.setting.options
        with meet(options.seconds + options.measure_seconds + OVERRUN_SECONDS) as ranks:
            if ranks is not None:
                self._together(ranks)
                return
        if (plan := self._stored()) is not None:
            try:
                self._apply(plan)
            except Exception as error:
                logger.warning("plan %s does not fit and is made anew: %s", self.report.plan_key, error)
                self.report.from_plan = False
            else:
                return
        self._apply(self._made())

    def _together(self, ranks: Meeting) -> None:
        """Rank 0 plans, and all rewrite the graph or none."""

        def make() -> Plan:  # each rank judges it on weights and inputs of its own
            return replace(self._stored() or self._made(), verdicts={})

        plan = ranks.share(f"{self.setting.key} {self.task.graph.digest()}", make)
        if plan is None:
            self.report.decision = f"left as it is: {ranks.reason}"
        else:
            self._apply(plan, ranks.agree)

    def _stored(self) -> Plan | None:
        plan = load_plan(self.report.plan_key) if self.setting.options.cache else None
        self.report.from_plan = plan is not None
        return plan

    def _made(self) -> Plan:
        """A plan made by searching, of those regions that are right."""
        found = search_regions(self.task, self.setting, self.spent)
        plan = found.plan(found.groups)
        strict = self.setting.options.strict
        self.report.disturbed = note_disturbance(plan.regions, self.spent.kernels_failed, strict=strict)
        self.undisturbed = not self.report.disturbed
        if self._declined(plan) or not self.setting.options.judge:
            return plan
        problem = self._problem(plan)
        if problem.startswith(UNDECIDED):  # for now: another time there may be more memory
            self.undisturbed = False
            return plan
        return self._kept(found, problem) if problem else plan

    def _problem(self, plan: Plan) -> str:
        """Why the graph must not be rewritten by ``plan``; "" if it may."""
        try:
            rewritten, added = self._trial(plan)
        except RebuildError as error:
            return str(error)
        return self._verdict(plan, rewritten)[0] if added else ""

    def _kept(self, found: Found, problem: str) -> Plan:
        """The plan of those regions that are right, when all of them together have a ``problem``."""

        def problem_of(groups: Collection[str]) -> str:
            if len(groups) == len(found.groups):
                return problem
            return self._problem(found.plan(groups))

        seconds = math.inf if self.setting.options.deterministic else NARROWING_SECONDS
        kept, refused = narrowed(found.groups, problem_of, seconds)
        self.report.refused = list(refused.values())
        total = len(found.groups)
        logger.warning("%d of %d regions left as they are: the judge refused %s", len(refused), total, problem)
        return found.plan(kept)

    def _apply(self, plan: Plan, agree: Callable[[], bool] = lambda: True) -> None:
        """Rewrite the graph by ``plan`` if it saves enough, is right, and other ranks ``agree``; store the plan, which
        remembers verdicts, where it is new."""
        self.report.regions = list(plan.regions)
        self.report.base_ms, self.report.best_ms = plan.base_ms, plan.best_ms
        self.report.decision, after = self._decision(plan, agree)
        may_store = after != plan if self.report.from_plan else self.undisturbed
        if self.setting.options.cache and may_store:
            store_plan(self.report.plan_key, after)

    def _decision(self, plan: Plan, agree: Callable[[], bool]) -> tuple[str, Plan]:
        """Rewrite the graph, or not; what was done and why, and the plan with what was learned of it."""
        options = self.setting.options
        if declined := self._declined(plan):
            if self.report.refused:
                return f"left as it is: the rewritten graph was refused ({self.report.refused[0]})", plan
            return declined, plan
        rewritten, added = self._trial(plan)
        if added == 0:
            return "left as it is: the chosen program is the original", plan
        if options.judge:
            problem, plan = self._verdict(plan, rewritten)
            if problem:
                decision = f"left as it is: the rewritten graph was refused ({problem})"
                logger.warning(decision)
                return decision, plan
        if options.measure:
            found = self.report.race = plan.race or _race(self.graph, rewritten, self.inputs)
            plan = replace(plan, race=found)
            if found.winner == "original":
                return "left as it is: the original graph is faster", plan
            if not found.winner and not self._promises(plan):
                return _too_little(plan), plan
        if not agree():
            return "left as it is: another rank could not rewrite it", plan
        _commit(self.graph, lambda: self._rebuild(plan, self._capture(self.graph)))
        self.report.changed = True
        return f"rewritten, {added} calls are new", plan

    def _declined(self, plan: Plan) -> str:
        """Why ``plan`` is not worth to be used, or must not; "" if it is."""
        options = self.setting.options
        if options.target != HERE:
            return f"left as it is: the plan is for {options.target}, at estimated prices"
        if self._promises(plan) or (options.measure and plan.saved_ms > 0):
            return ""
        return _too_little(plan)

    def _promises(self, plan: Plan) -> bool:
        return plan.saved_ms > self.setting.options.min_saving * plan.base_ms

    def _trial(self, plan: Plan) -> tuple[Graph, int]:
        """A rewritten copy of the graph, and how many of its calls are new."""
        captured = self._capture(_copy(self.graph))
        return captured.fx, self._rebuild(plan, captured)

    def _rebuild(self, plan: Plan, captured: Capture) -> int:
        check_fits(plan.program, plan.origin, captured.graph)
        return rebuild(captured, plan.program, plan.origin, frozen=self.setting.frozen)

    def _verdict(self, plan: Plan, rewritten: Graph) -> tuple[str, Plan]:
        """Why the judge refuses ``plan`` for these weights, "" if it does not, and the plan, which remembers it."""
        with self.spent.judging():
            key = fingerprint(plan, self.inputs)
            problem = self._judged.get(key, plan.verdicts.get(key))
            if problem is None:
                deterministic = self.setting.options.deterministic
                problem = judge(_copy(self.graph), rewritten, self.inputs, deterministic=deterministic)
        self._judged[key] = problem
        if not problem.startswith(UNDECIDED):
            plan = remembering(plan, key, problem)
        return problem, plan

    def _capture(self, graph: Graph) -> Capture:
        placeholders = graph.find_nodes(op="placeholder")
        weights = self.inputs.weights | self.inputs.owned
        modest = {placeholders[i] for i in weights if self.inputs.is_modest(i, frozen=self.setting.frozen)}
        exact = self.setting.options.exactness == "bitwise"
        return capture(graph, _weights(graph, self.inputs), exact=exact, modest=modest)


def _too_little(plan: Plan) -> str:
    return f"left as it is: the best program found saves {plan.saved_ms / max(plan.base_ms, 1e-12):.1%}"


def _plan_key(task: Task, setting: Setting) -> str:
    parts = context_of(torch.device(setting.device).type), setting.calibration, setting.parameters
    return hashlib.sha256(f"{setting.key} {parts!r} {task.graph.digest()}".encode()).hexdigest()


def _commit(graph: Graph, change: Callable[[], Any]) -> None:
    """Run ``change`` on ``graph``; put the graph back if it raises."""
    backup = _copy(graph)
    try:
        change()
    except BaseException:
        for node in reversed(list(graph.nodes)):
            graph.erase_node(node)
        graph.output(graph.graph_copy(backup, {}))
        (old,), (new,) = backup.find_nodes(op="output"), graph.find_nodes(op="output")
        new.meta = dict(old.meta)
        raise


def _copy(graph: Graph) -> Graph:
    copy = Graph()
    output = copy.graph_copy(graph, {})
    copy.output(output)
    (old,) = graph.find_nodes(op="output")
    (new,) = copy.find_nodes(op="output")
    new.meta = dict(old.meta)
    return GraphModule(graph.owning_module, copy).graph


def _weights(graph: Graph, inputs: GraphInputs) -> set[FxNode]:
    return {n for i, n in enumerate(graph.find_nodes(op="placeholder")) if i in inputs.weights}


def _race(original: Graph, rewritten: Graph, inputs: GraphInputs) -> RaceReport:
    """Which graph is faster, as measured now. Where this fails or finds no difference beyond the noise, the winner is
    left open, for the table to decide: it is still the best that is known.
    """
    try:
        values = sample_inputs(original, inputs.values)
        found = race([_copy(original), rewritten], inputs.weights, values, RACE_SECONDS)
    except Exception as error:
        report = RaceReport(0.0, 0.0, "", f"{type(error).__name__}: {error}".partition("\n")[0])
        logger.warning("graphs are not measured, predicted costs decide: %s", report.note)
    else:
        before, after = found.ms
        winner = "original" if found.faster(0, 1) else "rewritten" if found.faster(1, 0) else ""
        report = RaceReport(before, after, winner, "" if winner else "the difference is within the noise")
    return report
