"""One graph through the whole way: capture, plan or search, judge, rebuild."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import Any

import torch
from torch.fx import Graph, GraphModule
from torch.fx import Node as FxNode

from torch_eqsat.cost.calibration import Calibration, calibration_of
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
from torch_eqsat.search.budget import Budget, playouts
from torch_eqsat.search.environment import Limits
from torch_eqsat.search.kernels import with_kernels
from torch_eqsat.search.messages import Outcome, RepriceRequest, SearchRequest
from torch_eqsat.search.pool import WorkerPool
from torch_eqsat.search.program import Task, captured_program, price_of
from torch_eqsat.search.regions import Region, join_programs, split_into_regions

logger = logging.getLogger(__name__)

REPRICE_ROUNDS = 3
# Namespaces of operators that communicate.
COLLECTIVES = frozenset({"_c10d_functional", "_c10d_functional_autograd", "c10d", "_dtensor", "symm_mem", "fsdp"})
# The share of the time that goes to the searches; the rest is for extracting again at measured prices, and exactly.
SEARCH_SHARE = 0.7
# The exact extraction at the end may take this long for a region (s), if that much more is left of the time. Growing
# e-graphs is worth more than the last per cent: mobileone_s0, of 14 distinct regions, took 13.8 ms with exact
# extractions for all and 7.6 ms without.
EXACT_SECONDS, EXACT_NEEDS = 2.0, 4.0


@dataclass(frozen=True)
class Setting:
    """Everything besides the graph that a plan depends on. ``key`` identifies it across processes, but for the
    ``calibration``, which is read for each graph; ``rules`` are the user's laws as the search gets them."""

    options: Options
    frozen: bool
    device: str
    threads: int
    key: str
    rules: Shipped = ()
    calibration: Calibration = field(default_factory=Calibration)


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
    with Table(context_of(torch.device(setting.device).type)) as table:
        setting = replace(setting, calibration=calibration_of(table))
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
    if setting.options.cache and all(region["stop"] != "interrupted" for region in plan["regions"]):
        # A refused program must not come back from the cache, where nothing is checked again.
        store_plan(key, {**plan, "best_ms": plan["base_ms"]} if refused else plan)
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
    options = setting.options
    regions = split_into_regions(task, options.nodes)
    device = torch.device(setting.device)
    timer = CudaTimer() if device.type == "cuda" else CpuTimer()
    groups: dict[str, list[Region]] = {}
    for region in regions:
        groups.setdefault(region.task.graph.digest(), []).append(region)
    with (
        Table(context_of(device.type)) as table,
        WorkerPool(options.memory_bytes, options.executor) as pool,
    ):
        searcher = _Searcher(setting, report, pool, lambda kernels, until: measure_many(kernels, timer, table, until))
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
    """Searches regions with a pool of workers, measuring kernels between searches and never while one runs."""

    def __init__(
        self,
        setting: Setting,
        report: GraphReport,
        pool: WorkerPool,
        measure: Callable[[Any, float], dict[str, float]],
    ) -> None:
        self.setting, self.report, self.pool = setting, report, pool
        self._measure_kernels = measure
        self.prices: dict[str, float] = {}

    def search(self, groups: Sequence[Sequence[Region]]) -> list[Outcome]:
        """The best program of each group of equal regions, all of whose kernels are measured if time allows."""
        options = self.setting.options
        tasks = [group[0].task for group in groups]
        bases = self._measure_originals(tasks)
        start = time.monotonic()
        weights = [len(group) * base for group, base in zip(groups, bases, strict=True)]
        budget = Budget(SEARCH_SHARE * options.seconds, weights, self.pool.workers)
        # Small regions first: what they leave of the budget goes to the large ones.
        order = sorted(range(len(tasks)), key=lambda i: (len(tasks[i].graph), i))
        found = self.pool.map([partial(self._request, tasks[i], weights[i], sum(weights), budget) for i in order])
        outcomes = [outcome for _, outcome in sorted(zip(order, found, strict=True), key=itemgetter(0))]
        for problem in dict(chain.from_iterable(outcome.dropped for outcome in outcomes)).values():
            logger.warning("the search went on without a law of %srules: %s", PREFIX, problem)
        if self.pool.interrupted:
            logger.warning("interrupted: the search ends with the best it has found, at prices as they are")
            self.report.search_seconds += sum(outcome.seconds for outcome in outcomes)
            return outcomes
        for _ in range(REPRICE_ROUNDS):
            # What the programs need comes first, then what might make better ones.
            wanted = [
                *chain.from_iterable(o.unmeasured for o in outcomes),
                *chain.from_iterable(o.missing for o in outcomes),
            ]
            if self._measure(wanted) == 0:
                break
            outcomes = self._reprice(tasks, outcomes, [0.0] * len(tasks))
        outcomes = self._reprice(tasks, outcomes, self._exact_seconds(outcomes, start + options.seconds))
        if self.report.measure_seconds >= options.measure_seconds:
            # An optimistic guess is no reason to leave what is known.
            outcomes = [self._without_guesses(t, o) for t, o in zip(tasks, outcomes, strict=True)]
        self.report.search_seconds += sum(outcome.seconds for outcome in outcomes)
        return outcomes

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

    def _measure_originals(self, tasks: Sequence[Task]) -> list[float]:
        """Measure the kernels that the graph runs now, what every saving is compared with; the tasks' costs in ms."""
        pricing = self.pricing()
        for task in tasks:
            captured_program(task, pricing)
        self._measure(pricing.missing.values())
        pricing = self.pricing()
        for task in tasks:  # and what else could compute the same
            for term in range(len(task.graph)):
                price_of(task.graph, term, pricing)
        self._measure(pricing.missing.values())
        return [captured_program(task, self.pricing()).cost for task in tasks]

    def pricing(self) -> Pricing:
        """Prices as they are known now."""
        setting = self.setting
        # Another kernel rounds in another way.
        free = setting.device == "cpu" and setting.options.exactness != "bitwise"
        return Pricing(
            setting.frozen,
            setting.device,
            setting.threads,
            dict(self.prices),
            coefficients=setting.calibration.coefficients,
            alternatives=free,
            roofline=setting.calibration.roofline,
        )

    def _request(self, task: Task, weight: float, all_weights: float, budget: Budget) -> SearchRequest:
        options = self.setting.options
        shared = playouts(options.simulations, weight, all_weights)
        limits = Limits(options.nodes, budget.share(weight), shared)
        disabled = frozenset(options.disable)
        return SearchRequest(
            task,
            self.pricing(),
            limits,
            options.exactness,
            disabled,
            options.seed,
            options.strategy,
            self.setting.rules,
        )

    def _reprice(self, tasks: Sequence[Task], outcomes: Sequence[Outcome], milp: Sequence[float]) -> list[Outcome]:
        """Extract again at today's prices, with as many seconds for exact extraction as ``milp`` says."""
        possible = [i for i, outcome in enumerate(outcomes) if outcome.extractables and milp[i] >= 0]
        seed = self.setting.options.seed
        requests = [partial(RepriceRequest, tasks[i], outcomes[i], self.pricing(), seed, milp[i]) for i in possible]
        again = dict(zip(possible, self.pool.map(requests), strict=True))
        return [again.get(i, outcome) for i, outcome in enumerate(outcomes)]

    def _exact_seconds(self, outcomes: Sequence[Outcome], end: float) -> list[float]:
        """For each outcome the seconds of its exact extraction; -1 for none. Those that save most come first."""
        seconds = [-1.0] * len(outcomes)
        left = max(0.0, end - time.monotonic())
        for i in sorted(range(len(outcomes)), key=lambda i: outcomes[i].program.cost - outcomes[i].base_cost):
            if outcomes[i].program.cost < outcomes[i].base_cost and left >= EXACT_NEEDS:
                seconds[i] = EXACT_SECONDS
                left -= EXACT_SECONDS
        return seconds

    def _without_guesses(self, task: Task, outcome: Outcome) -> Outcome:
        if not outcome.unmeasured:
            return outcome
        captured = captured_program(task, self.pricing())
        return replace(outcome, program=captured, base_cost=captured.cost, lower_bound=0.0, unmeasured=())
