"""One graph through the whole way: capture, plan or search, judge, rebuild."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import Graph, GraphModule
from torch.fx import Node as FxNode

from torch_eqsat.cost.calibration import calibration_of, measure_bandwidths
from torch_eqsat.cost.kernels import context_of, measure_many
from torch_eqsat.cost.probes import time_copy
from torch_eqsat.cost.table import Table, open_table
from torch_eqsat.cost.targets import HERE
from torch_eqsat.cost.timer import CpuTimer, CudaTimer
from torch_eqsat.disturbance import note_disturbance
from torch_eqsat.graph.capture import Capture, capture
from torch_eqsat.graph.fold import fold_factories
from torch_eqsat.graph.judge import disagreement, fits_in_memory, sample_inputs
from torch_eqsat.graph.race import race
from torch_eqsat.graph.rebuild import rebuild
from torch_eqsat.graph.strided import replace_contiguous_views
from torch_eqsat.graph.untouchable import why_untouchable
from torch_eqsat.plan import load_plan, store_plan
from torch_eqsat.program_json import decode_program, encode_program
from torch_eqsat.ranks import Meeting, meet
from torch_eqsat.report import GraphReport, RaceReport, RegionReport
from torch_eqsat.search.kernels import residency_of, with_kernels
from torch_eqsat.search.messages import Outcome
from torch_eqsat.search.pool import OVERRUN_SECONDS, WorkerPool
from torch_eqsat.search.program import Task
from torch_eqsat.search.regions import Region, join_programs, split_into_regions
from torch_eqsat.searcher import Searcher, Setting, Times

logger = logging.getLogger(__name__)

RACE_SECONDS = 3.0  # for timing the original and the rewritten graph in turn


@dataclass(frozen=True)
class GraphInputs:
    """What is known of a graph's placeholders: which of them hold weights, and real values for all (or none)."""

    weights: frozenset[int]
    values: Sequence[Any]


def optimize(graph: Graph, setting: Setting, inputs: GraphInputs) -> GraphReport:
    """Rewrite ``graph`` in place where that is predicted to pay and checked to be right.

    Until everything is decided and checked, work is done on copies; an exception leaves ``graph`` as it was (but for
    folded factory operators and reads of contiguous memory made views, whose values are bitwise the same).
    """
    target = "" if setting.options.target == HERE else setting.options.target
    report = GraphReport(sum(n.op == "call_function" for n in graph.nodes), setting.frozen, target=target)
    replace_contiguous_views(graph)
    if reason := why_untouchable(graph):
        report.decision = f"left as it is: {reason}"
        return report
    if setting.frozen:
        report.folded = fold_factories(graph, _weights(graph, inputs))
    table = open_table(context_of(torch.device(setting.device).type))
    if _may_measure(setting) and torch.device(setting.device).type == "cpu":
        measure_bandwidths(table, time_copy)
    setting = replace(setting, calibration=calibration_of(table))
    captured = _capture(_copy(graph), inputs, setting)
    task = Task(captured.graph, captured.parts)
    key = report.plan_key = _plan_key(task, setting)
    with meet(setting.options.seconds + setting.options.measure_seconds + OVERRUN_SECONDS) as ranks:
        if ranks is not None:
            _plan_together(ranks, task, graph, captured, setting, inputs, report)
            return report
    plan = load_plan(key) if setting.options.cache else None
    if plan is not None:
        report.from_plan = True
        try:
            _apply(plan, graph, captured, setting, inputs, report)
        except Exception as error:
            logger.warning("plan %s does not fit and is made anew: %s", key, error)
            report.from_plan = False
            captured = _capture(_copy(graph), inputs, setting)
        else:
            return report
    plan = _search(task, setting, report)
    undisturbed = note_disturbance(plan["regions"], report, strict=setting.options.strict)
    refused = _apply(plan, graph, captured, setting, inputs, report)
    if setting.options.cache and undisturbed:
        # A refused program must not come back from the cache, where nothing is checked again.
        store_plan(key, {**plan, "best_ms": plan["base_ms"]} if refused else plan)
    return report


def _plan_together(
    ranks: Meeting,
    task: Task,
    graph: Graph,
    captured: Capture,
    setting: Setting,
    inputs: GraphInputs,
    report: GraphReport,
) -> None:
    """The same for ranks that work together: rank 0 plans, and all rewrite the graph or none."""
    undisturbed = False

    def make() -> dict[str, Any]:
        nonlocal undisturbed
        if setting.options.cache and (known := load_plan(report.plan_key)) is not None:
            report.from_plan = True
            return known
        made = _search(task, setting, report)
        undisturbed = note_disturbance(made["regions"], report, strict=setting.options.strict)
        return made

    plan = ranks.share(f"{setting.key} {task.graph.digest()}", make)
    if plan is None:
        report.decision = f"left as it is: {ranks.reason}"
        return
    refused = _apply(plan, graph, captured, setting, inputs, report, ranks.agree)
    if setting.options.cache and undisturbed:
        store_plan(report.plan_key, {**plan, "best_ms": plan["base_ms"]} if refused else plan)


def _plan_key(task: Task, setting: Setting) -> str:
    machine = context_of(torch.device(setting.device).type)
    return hashlib.sha256(
        f"{setting.key} {machine!r} {setting.calibration!r} {task.graph.digest()}".encode()
    ).hexdigest()


def _apply(
    plan: dict[str, Any],
    graph: Graph,
    captured: Capture,
    setting: Setting,
    inputs: GraphInputs,
    report: GraphReport,
    agree: Callable[[], bool] = lambda: True,
) -> bool:
    """Rewrite ``graph`` by ``plan`` if it saves enough and other ranks ``agree``; whether the result was refused.
    ``captured`` is of a copy."""
    report.regions = [RegionReport(**region) for region in plan["regions"]]
    report.base_ms, report.best_ms = plan["base_ms"], plan["best_ms"]
    saved = report.base_ms - report.best_ms
    options = setting.options
    if options.target != HERE:
        report.decision = f"left as it is: the plan is for {options.target}, at estimated prices"
        return False
    promises = saved > options.min_saving * report.base_ms
    too_little = f"left as it is: the best program found saves {saved / max(report.base_ms, 1e-12):.1%}"
    if not (promises or (options.measure and saved > 0)):
        report.decision = too_little
        return False
    program, origin = decode_program(plan["program"], captured.graph)
    added = rebuild(captured, program, origin)
    if added == 0:
        report.decision = "left as it is: the chosen program is the original"
        return False
    if options.verify and not report.from_plan and (problem := _judge(graph, captured.fx, inputs, report)):
        report.decision = f"left as it is: the rewritten graph was refused ({problem})"
        logger.warning(report.decision)
        return True
    if options.measure:
        report.race = _race(plan, graph, captured.fx, inputs)
        if report.race.winner == "original" or not (report.race.winner or promises):
            report.decision = "left as it is: the original graph is faster" if report.race.winner else too_little
            return False
    if not agree():
        report.decision = "left as it is: another rank could not rewrite it"
        return False
    _commit(graph, lambda: rebuild(_capture(graph, inputs, setting), program, origin))
    report.changed = True
    report.decision = f"rewritten, {added} calls are new"
    return False


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
    return capture(graph, _weights(graph, inputs), exact=setting.options.exactness == "bitwise")


def _weights(graph: Graph, inputs: GraphInputs) -> set[FxNode]:
    return {n for i, n in enumerate(graph.find_nodes(op="placeholder")) if i in inputs.weights}


def _judge(original: Graph, rewritten: Graph, inputs: GraphInputs, report: GraphReport) -> str:
    start = time.monotonic()
    if not fits_in_memory(original):
        return "it is too large to be checked in float64 here"
    values = sample_inputs(original, inputs.values)
    modules = [GraphModule(graph.owning_module, graph) for graph in (_copy(original), rewritten)]
    problem = disagreement(modules[0], modules[1], values)
    report.verify_seconds = time.monotonic() - start
    return problem


def _race(plan: dict[str, Any], original: Graph, rewritten: Graph, inputs: GraphInputs) -> RaceReport:
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


def _search(task: Task, setting: Setting, report: GraphReport) -> dict[str, Any]:
    """A plan made by searching each distinct region once."""
    options = setting.options
    regions = split_into_regions(task, options.nodes)
    device = torch.device(setting.device)
    groups: dict[str, list[Region]] = {}
    for region in regions:
        groups.setdefault(region.task.graph.digest(), []).append(region)
    table = open_table(context_of(device.type))
    with WorkerPool(options.memory_bytes, options.executor) as pool:
        searcher = Searcher(setting, report, pool, _times(setting, table, report.kernels_failed), residency_of(task))
        outcomes = dict(zip(groups, searcher.search(list(groups.values())), strict=True))
    rows = [_region_report(outcomes[digest], group) for digest, group in groups.items()]
    programs = [outcomes[region.task.graph.digest()].program for region in regions]
    program = join_programs(task, regions, programs)
    chosen = with_kernels(program.graph, searcher.pricing())
    return {
        "base_ms": sum(r.count * r.base_ms for r in rows),
        "best_ms": sum(r.count * r.best_ms for r in rows),
        "regions": [vars(r) for r in rows],
        "program": json.loads(json.dumps(encode_program(chosen, program.origin))),
    }


def _may_measure(setting: Setting) -> bool:
    options = setting.options
    return options.target == HERE and not options.deterministic and options.measure_seconds > 0


def _times(setting: Setting, table: Table, failed: dict[str, str]) -> Times:
    """Where the times of kernels come from: measured here if the table lacks them, the table alone, or nowhere. What
    could not be timed, for now, is noted in ``failed``."""
    if setting.options.target != HERE:
        return lambda kernels, until: {}
    if setting.options.deterministic:
        return lambda kernels, until: {k: m.ms for k, m in table.lookup_many(kernel.key for kernel in kernels).items()}
    timer = CudaTimer() if torch.device(setting.device).type == "cuda" else CpuTimer()
    return lambda kernels, until: measure_many(kernels, timer, table, until, failed)


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
        transient=outcome.transient,
    )
