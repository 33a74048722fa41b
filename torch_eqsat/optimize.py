"""One graph through the whole way: capture, plan or search, judge, rebuild."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph, GraphModule
from torch.fx import Node as FxNode

from torch_eqsat.cost.kernels import context_of, measure_many
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.cost.table import Table
from torch_eqsat.cost.timer import CpuTimer, CudaTimer
from torch_eqsat.graph.capture import Capture, capture
from torch_eqsat.graph.fold import fold_factories
from torch_eqsat.graph.judge import disagreement, fits_in_memory, sample_inputs
from torch_eqsat.graph.rebuild import rebuild
from torch_eqsat.options import PREFIX, Options
from torch_eqsat.plan import decode_program, encode_program, load_plan, store_plan
from torch_eqsat.report import GraphReport, RegionReport
from torch_eqsat.rules.shipping import Shipped
from torch_eqsat.search.client import WorkerClient
from torch_eqsat.search.environment import Limits
from torch_eqsat.search.messages import Outcome, RepriceRequest, SearchRequest
from torch_eqsat.search.program import Task
from torch_eqsat.search.regions import Region, join_programs, split_into_regions

logger = logging.getLogger(__name__)

REPRICE_ROUNDS = 3
# Namespaces of operators that communicate.
COLLECTIVES = frozenset({"_c10d_functional", "_c10d_functional_autograd", "c10d", "_dtensor", "symm_mem", "fsdp"})
# The exact extraction at the end may take this long for a region, and this share of the region's time.
EXACT_SECONDS, EXACT_SHARE = 2.0, 0.2
# With less time than this for a region (s), growing the e-graphs of the others is worth more than the last per cent of
# this one: mobileone_s0, of 14 distinct regions, took 13.8 ms with exact extractions and 7.6 ms without.
EXACT_NEEDS = 4.0
# What an answer may take beyond the time that was asked for, before the worker is stopped.
ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Setting:
    """Everything besides the graph that a plan depends on. ``key`` identifies it across processes; ``rules`` are the
    user's laws as the search gets them."""

    options: Options
    frozen: bool
    device: str
    threads: int
    key: str
    rules: Shipped = ()


@dataclass(frozen=True)
class GraphInputs:
    """What is known of a graph's placeholders: which of them hold weights, and real values for all (or none)."""

    weights: frozenset[int]
    values: Sequence[Any]


def optimize(graph: Graph, setting: Setting, inputs: GraphInputs) -> GraphReport:
    """Rewrite ``graph`` in place where that is predicted to pay and checked to be right.

    Until everything is decided and checked, work is done on copies; an exception leaves ``graph`` as it was (but for
    folded factory operators, whose values are bitwise the same).
    """
    report = GraphReport(sum(n.op == "call_function" for n in graph.nodes), setting.frozen)
    if reason := _untouchable(graph):
        report.decision = f"left as it is: {reason}"
        return report
    if setting.frozen:
        report.folded = fold_factories(graph, _weights(graph, inputs))
    captured = _capture(_copy(graph), inputs, setting)
    task = Task(captured.graph, captured.parts)
    key = _plan_key(task, setting)
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
    refused = _apply(plan, graph, captured, setting, inputs, report)
    if setting.options.cache:
        # A refused program must not come back from the cache, where nothing is checked again.
        store_plan(key, {**plan, "best_ms": plan["base_ms"]} if refused else plan)
    return report


def _plan_key(task: Task, setting: Setting) -> str:
    machine = context_of(torch.device(setting.device).type)
    return hashlib.sha256(f"{setting.key} {machine!r} {task.graph.digest()}".encode()).hexdigest()


def _untouchable(graph: Graph) -> str:
    """Why a graph must not be rewritten at all; "" if it may."""
    for node in graph.nodes:
        namespace = getattr(node.target, "namespace", "")
        if namespace in COLLECTIVES:
            return f"ranks have to agree on the order of {node.target}"
        if getattr(node.target, "overloadpacket", None) is torch.ops.aten.as_strided:
            return "as_strided reads memory in a layout that a rewrite may change"
    return ""


def _apply(
    plan: dict[str, Any],
    graph: Graph,
    captured: Capture,
    setting: Setting,
    inputs: GraphInputs,
    report: GraphReport,
) -> bool:
    """Rewrite ``graph`` by ``plan`` if it saves enough; whether the result was refused. ``captured`` is of a copy."""
    report.regions = [RegionReport(**region) for region in plan["regions"]]
    report.base_ms, report.best_ms = plan["base_ms"], plan["best_ms"]
    saved = report.base_ms - report.best_ms
    if saved <= setting.options.min_saving * report.base_ms:
        report.decision = f"left as it is: the best program found saves {saved / max(report.base_ms, 1e-12):.1%}"
        return False
    program, origin = decode_program(plan["program"])
    added = rebuild(captured, program, origin)
    if added == 0:
        report.decision = "left as it is: the chosen program is the original"
        return False
    if setting.options.verify and not report.from_plan and (problem := _judge(graph, captured.fx, inputs, report)):
        report.decision = f"left as it is: the rewritten graph was refused ({problem})"
        logger.warning(report.decision)
        return True
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


def _search(task: Task, setting: Setting, report: GraphReport) -> dict[str, Any]:
    """A plan made by searching each distinct region once."""
    regions = split_into_regions(task)
    device = torch.device(setting.device)
    timer = CudaTimer() if device.type == "cuda" else CpuTimer()
    distinct: dict[str, list[Region]] = {}
    for region in regions:
        distinct.setdefault(region.task.graph.digest(), []).append(region)
    with (
        Table(context_of(device.type)) as table,
        WorkerClient(setting.options.memory_bytes) as worker,
    ):
        searcher = _Searcher(setting, report, worker, lambda kernels, until: measure_many(kernels, timer, table, until))
        searcher.measure_originals([group[0].task for group in distinct.values()])
        outcomes: dict[str, Outcome] = {}
        for digest, group in sorted(distinct.items(), key=lambda item: len(item[1][0].task.graph)):
            # Small regions first: what they leave of the budget goes to the large ones.
            outcomes[digest] = searcher.search(group[0].task, len(distinct) - len(outcomes))
    rows = [_region_report(outcomes[digest], group) for digest, group in distinct.items()]
    programs = [outcomes[region.task.graph.digest()].program for region in regions]
    program, origin = join_programs(task, regions, programs)
    return {
        "base_ms": sum(r.count * r.base_ms for r in rows),
        "best_ms": sum(r.count * r.best_ms for r in rows),
        "regions": [vars(r) for r in rows],
        "program": json.loads(json.dumps(encode_program(program, origin))),
    }


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


class _Searcher:
    """Searches regions with one worker, measuring kernels between searches and never inside them."""

    def __init__(
        self,
        setting: Setting,
        report: GraphReport,
        worker: WorkerClient,
        measure: Callable[[Any, float], dict[str, float]],
    ) -> None:
        self.setting, self.report, self.worker = setting, report, worker
        self._measure_kernels = measure
        self.prices: dict[str, float] = {}
        self.seconds_left = setting.options.seconds
        self.dropped: set[str] = set()

    def _measure(self, kernels: Any) -> int:
        """Measure what is not priced yet, as long as there is time; how many prices are new."""
        start = time.monotonic()
        left = self.setting.options.measure_seconds - self.report.measure_seconds
        wanted = [kernel for kernel in kernels if kernel.key not in self.prices]
        found = self._measure_kernels(wanted, start + left) if wanted and left > 0 else {}
        new = set(found) - set(self.prices)
        self.prices.update(found)
        self.report.kernels_measured += len(new)
        self.report.measure_seconds += time.monotonic() - start
        return len(new)

    def measure_originals(self, tasks: Sequence[Task]) -> None:
        """Measure the kernels that the graph runs now: what every saving is compared with."""
        pricing = self._pricing()
        for task in tasks:
            for parts in task.parts.values():
                for part in parts:
                    node, result = task.graph.nodes[part], task.graph.types[part]
                    operands = [t for c in node.children if (t := task.graph.types[c]) is not None]
                    if result is not None and len(operands) == len(node.children):
                        constants = [task.graph.constant[c] for c in node.children]
                        pricing.price(node, operands, result, constants, task.graph.constant[part])
        self._measure(pricing.missing.values())

    def _pricing(self) -> Pricing:
        return Pricing(self.setting.frozen, self.setting.device, self.setting.threads, self.prices)

    def search(self, task: Task, regions_left: int) -> Outcome:
        """The best program of one region, all of whose kernels are measured if time allows."""
        options = self.setting.options
        seconds = max(0.0, self.seconds_left) / regions_left
        limits = Limits(options.nodes, seconds, options.simulations)
        request = SearchRequest(
            task,
            dict(self.prices),
            self.setting.frozen,
            self.setting.threads,
            self.setting.device,
            limits,
            options.exactness,
            frozenset(options.disable),
            options.seed,
            self.setting.rules,
        )
        start = time.monotonic()
        outcome = self.worker.ask(request, seconds + ANSWER_SECONDS)
        spent = time.monotonic() - start
        for problem in sorted(set(outcome.dropped) - self.dropped):
            logger.warning("the search went on without a law of %srules: %s", PREFIX, problem)
            self.dropped.add(problem)
        for _ in range(REPRICE_ROUNDS):
            # What the program needs comes first, then what might make a better one.
            if self._measure([*outcome.unmeasured, *outcome.missing]) == 0:
                break
            outcome, spent = self._reprice(0.0, spent)
        if outcome.program.cost < outcome.base_cost and seconds >= EXACT_NEEDS:
            outcome, spent = self._reprice(min(EXACT_SECONDS, EXACT_SHARE * seconds), spent)
        if outcome.unmeasured and self.report.measure_seconds >= options.measure_seconds:
            # An optimistic guess is no reason to leave what is known.
            outcome = self.worker.ask(RepriceRequest(dict(self.prices), original=True), ANSWER_SECONDS)
        self.seconds_left -= spent
        self.report.search_seconds += spent
        return outcome

    def _reprice(self, milp_seconds: float, spent: float) -> tuple[Outcome, float]:
        """Ask for another extraction; the answer, and the seconds spent so far with those that it took."""
        start = time.monotonic()
        outcome = self.worker.ask(RepriceRequest(dict(self.prices), milp_seconds), milp_seconds + ANSWER_SECONDS)
        return outcome, spent + time.monotonic() - start
