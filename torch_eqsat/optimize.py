"""One graph through the whole way: capture, plan or search, judge, rebuild."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import Graph, GraphModule
from torch.fx import Node as FxNode

from torch_eqsat.cost.calibration import calibration_of, measure_bandwidths
from torch_eqsat.cost.kernels import context_of, measure_many
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.cost.probes import time_copy
from torch_eqsat.cost.table import Table
from torch_eqsat.cost.targets import HERE
from torch_eqsat.cost.timer import CpuTimer, CudaTimer
from torch_eqsat.graph.capture import Capture, capture
from torch_eqsat.graph.fold import fold_factories
from torch_eqsat.graph.hard_inputs import sample_inputs
from torch_eqsat.graph.race import race
from torch_eqsat.graph.rebuild import rebuild
from torch_eqsat.graph.strided import replace_contiguous_views, uses_addresses
from torch_eqsat.plan import decode_program, encode_program, load_plan, store_plan
from torch_eqsat.report import GraphReport, RaceReport, RegionReport
from torch_eqsat.search.kernels import residency_of, with_kernels
from torch_eqsat.search.messages import Outcome
from torch_eqsat.search.pool import WorkerPool
from torch_eqsat.search.program import Task, captured_program
from torch_eqsat.search.regions import Region, join_programs, split_into_regions
from torch_eqsat.searcher import Searcher, Setting, Times
from torch_eqsat.verdict import GraphInputs, Plan, fingerprint, judge, narrowed, remember, remembered

logger = logging.getLogger(__name__)

RACE_SECONDS = 3.0  # for timing the original and the rewritten graph in turn
# Namespaces of operators that communicate.
COLLECTIVES = frozenset({"_c10d_functional", "_c10d_functional_autograd", "c10d", "_dtensor", "symm_mem", "fsdp"})


def optimize(graph: Graph, setting: Setting, inputs: GraphInputs) -> GraphReport:
    """Rewrite ``graph`` in place where that is predicted to pay and checked to be right.

    Until everything is decided and checked, work is done on copies; an exception leaves ``graph`` as it was (but for
    folded factory operators and reads of contiguous memory made views, whose values are bitwise the same).
    """
    target = "" if setting.options.target == HERE else setting.options.target
    report = GraphReport(sum(n.op == "call_function" for n in graph.nodes), setting.frozen, target=target)
    replace_contiguous_views(graph)
    if reason := _untouchable(graph):
        report.decision = f"left as it is: {reason}"
        return report
    if setting.frozen:
        report.folded = fold_factories(graph, _weights(graph, inputs))
    with Table(context_of(torch.device(setting.device).type)) as table:
        if _may_measure(setting) and torch.device(setting.device).type == "cpu":
            measure_bandwidths(table, time_copy)
        setting = replace(setting, calibration=calibration_of(table))
    captured = _capture(_copy(graph), inputs, setting)
    task = Task(captured.graph, captured.parts)
    key = report.plan_key = _plan_key(task, setting)
    plan = load_plan(key) if setting.options.cache else None
    if plan is not None:
        report.from_plan = True
        try:
            before = json.dumps(plan)
            _apply(plan, graph, setting, inputs, report)
            if json.dumps(plan) != before:
                store_plan(key, plan)
        except Exception as error:
            logger.warning("plan %s does not fit and is made anew: %s", key, error)
            report.from_plan = False
        else:
            return report
    found = _search(task, setting, report)
    plan = _apply(found.plan(found.groups), graph, setting, inputs, report, found)
    if setting.options.cache and all(region["stop"] != "interrupted" for region in plan["regions"]):
        store_plan(key, plan)
    return report


def _plan_key(task: Task, setting: Setting) -> str:
    machine = context_of(torch.device(setting.device).type)
    return hashlib.sha256(
        f"{setting.key} {machine!r} {setting.calibration!r} {task.graph.digest()}".encode()
    ).hexdigest()


def _untouchable(graph: Graph) -> str:
    """Why a graph must not be rewritten at all; "" if it may."""
    for node in graph.nodes:
        namespace = getattr(node.target, "namespace", "")
        if namespace in COLLECTIVES:
            return f"ranks have to agree on the order of {node.target}"
        if uses_addresses(node):
            return f"{node.target} depends on a layout in memory that a rewrite may change"
    return ""


def _apply(
    plan: Plan, graph: Graph, setting: Setting, inputs: GraphInputs, report: GraphReport, found: Found | None = None
) -> Plan:
    """Rewrite ``graph`` by ``plan`` if it saves enough and is right; the plan that is to be remembered. Of a plan just
    ``found`` those regions are kept that are right."""
    options = setting.options
    report.regions = [RegionReport(**region) for region in plan["regions"]]
    report.base_ms, report.best_ms = plan["base_ms"], plan["best_ms"]
    if declined := _declined(plan, setting):
        refused = f"left as it is: the rewritten graph was refused ({report.refused[0]})" if report.refused else ""
        report.decision = refused or declined
        return plan
    rewritten, added = _trial(plan, graph, setting, inputs)
    if added == 0:
        report.decision = "left as it is: the chosen program is the original"
        return plan
    if options.verify and (problem := _verdict(plan, graph, rewritten, setting, inputs, report)):
        if found is None or report.refused:
            report.decision = f"left as it is: the rewritten graph was refused ({problem})"
            logger.warning(report.decision)
            return plan
        return _apply(_kept(found, problem, graph, setting, inputs, report), graph, setting, inputs, report, found)
    if options.measure:
        report.race = _race(plan, graph, rewritten, inputs)
        if report.race.winner == "original" or not (report.race.winner or _promises(plan, setting)):
            faster = bool(report.race.winner)
            report.decision = "left as it is: the original graph is faster" if faster else _too_little(plan, setting)
            return plan
    program, origin = decode_program(plan["program"])
    _commit(graph, lambda: rebuild(_capture(graph, inputs, setting), program, origin, frozen=setting.frozen))
    report.changed = True
    report.decision = f"rewritten, {added} calls are new"
    return plan


def _declined(plan: Plan, setting: Setting) -> str:
    """Why ``plan`` is not worth to be used, or must not; "" if it is."""
    options = setting.options
    if options.target != HERE:
        return f"left as it is: the plan is for {options.target}, at estimated prices"
    if _promises(plan, setting) or (options.measure and plan["best_ms"] < plan["base_ms"]):
        return ""
    return _too_little(plan, setting)


def _promises(plan: Plan, setting: Setting) -> bool:
    return bool(plan["base_ms"] - plan["best_ms"] > setting.options.min_saving * plan["base_ms"])


def _too_little(plan: Plan, setting: Setting) -> str:
    saved = (plan["base_ms"] - plan["best_ms"]) / max(plan["base_ms"], 1e-12)
    return f"left as it is: the best program found saves {saved:.1%}"


def _trial(plan: Plan, graph: Graph, setting: Setting, inputs: GraphInputs) -> tuple[Graph, int]:
    """A rewritten copy of ``graph``, and how many of its calls are new."""
    captured = _capture(_copy(graph), inputs, setting)
    added = rebuild(captured, *decode_program(plan["program"]), frozen=setting.frozen)
    return captured.fx, added


def _verdict(
    plan: Plan, graph: Graph, rewritten: Graph, setting: Setting, inputs: GraphInputs, report: GraphReport
) -> str:
    """Why the judge refuses ``plan`` for these weights; "" if it does not. The plan remembers it."""
    start = time.monotonic()
    key = fingerprint(plan, inputs)
    problem = remembered(plan, key)
    if problem is None:
        problem = judge(_copy(graph), rewritten, inputs, deterministic=setting.options.deterministic)
        remember(plan, key, problem)
    report.verify_seconds += time.monotonic() - start
    return problem


def _kept(found: Found, problem: str, graph: Graph, setting: Setting, inputs: GraphInputs, report: GraphReport) -> Plan:
    """The plan of those regions that are right, when all of them together have a ``problem``."""

    def problem_of(groups: Collection[str]) -> str:
        if list(groups) == found.groups:
            return problem
        plan = found.plan(groups)
        return _verdict(plan, graph, _trial(plan, graph, setting, inputs)[0], setting, inputs, report)

    kept, refused = narrowed(found.groups, problem_of)
    report.refused = list(refused.values())
    logger.warning("%d of %d regions left as they are: the judge refused %s", len(refused), len(found.groups), problem)
    return found.plan(kept)


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


def _capture(graph: Graph, inputs: GraphInputs, setting: Setting) -> Capture:
    placeholders = graph.find_nodes(op="placeholder")
    weights = inputs.weights | inputs.owned
    modest = {placeholders[i] for i in weights if inputs.is_modest(i, frozen=setting.frozen)}
    return capture(graph, _weights(graph, inputs), exact=setting.options.exactness == "bitwise", modest=modest)


def _weights(graph: Graph, inputs: GraphInputs) -> set[FxNode]:
    return {n for i, n in enumerate(graph.find_nodes(op="placeholder")) if i in inputs.weights}


def _race(plan: Plan, original: Graph, rewritten: Graph, inputs: GraphInputs) -> RaceReport:
    """Which graph is faster: as ``plan`` remembers, or measured now and put there. Where this fails or finds no
    difference beyond the noise, the winner is left open, for the table to decide: it is still the best that is known.
    """
    if "race" in plan:
        return RaceReport(**plan["race"])
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
    plan["race"] = vars(report)
    return report


@dataclass(frozen=True)
class Found:
    """What the searches of a graph's regions found; equal regions are a group, known by its digest."""

    task: Task
    regions: Sequence[Region]
    outcomes: Mapping[str, Outcome]
    pricing: Pricing

    @property
    def groups(self) -> list[str]:
        """The groups that have a better program, in order."""
        return [digest for digest, outcome in self.outcomes.items() if outcome.program.cost < outcome.base_cost]

    def plan(self, kept: Collection[str]) -> Plan:
        """The plan that rewrites the groups ``kept`` and leaves all others as they are."""
        members: dict[str, list[Region]] = {}
        for region in self.regions:
            members.setdefault(region.task.graph.digest(), []).append(region)
        outcomes = {d: o if d in kept else self._original(members[d][0], o) for d, o in self.outcomes.items()}
        rows = [_region_report(outcomes[digest], group) for digest, group in members.items()]
        programs = [outcomes[region.task.graph.digest()].program for region in self.regions]
        program = join_programs(self.task, self.regions, programs)
        chosen = with_kernels(program.graph, self.pricing)
        return {
            "base_ms": sum(r.count * r.base_ms for r in rows),
            "best_ms": sum(r.count * r.best_ms for r in rows),
            "regions": [vars(r) for r in rows],
            "program": json.loads(json.dumps(encode_program(chosen, program.origin))),
        }

    def _original(self, region: Region, outcome: Outcome) -> Outcome:
        program = replace(captured_program(region.task, self.pricing), cost=outcome.base_cost)
        return replace(outcome, program=program)


def _search(task: Task, setting: Setting, report: GraphReport) -> Found:
    """What is found by searching each distinct region once."""
    options = setting.options
    regions = split_into_regions(task, options.nodes)
    device = torch.device(setting.device)
    groups: dict[str, list[Region]] = {}
    for region in regions:
        groups.setdefault(region.task.graph.digest(), []).append(region)
    with (
        Table(context_of(device.type)) as table,
        WorkerPool(options.memory_bytes, options.executor) as pool,
    ):
        searcher = Searcher(setting, report, pool, _times(setting, table), residency_of(task))
        outcomes = dict(zip(groups, searcher.search(list(groups.values())), strict=True))
    return Found(task, regions, outcomes, searcher.pricing())


def _may_measure(setting: Setting) -> bool:
    options = setting.options
    return options.target == HERE and not options.deterministic and options.measure_seconds > 0


def _times(setting: Setting, table: Table) -> Times:
    """Where the times of kernels come from: measured here if the table lacks them, the table alone, or nowhere."""
    if setting.options.target != HERE:
        return lambda kernels, until: {}
    if setting.options.deterministic:
        return lambda kernels, until: {k: m.ms for k, m in table.lookup_many(kernel.key for kernel in kernels).items()}
    timer = CudaTimer() if torch.device(setting.device).type == "cuda" else CpuTimer()
    return lambda kernels, until: measure_many(kernels, timer, table, until)


def _region_report(outcome: Outcome, group: list[Region]) -> RegionReport:
    return RegionReport(
        count=len(group),
        terms=len(group[0].task.graph),
        base_ms=outcome.base_cost,
        best_ms=outcome.program.cost,
        lower_bound_ms=outcome.lower_bound,
        laws=dict(outcome.program.laws),
        stop=outcome.stop,
        simulations=outcome.simulations,
        nodes=outcome.nodes,
        seconds=outcome.seconds,
    )
