"""One graph through the whole way: passes, capture, plan or search, judge, rebuild."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from torch.fx import Graph

from torch_eqsat.cost.targets import HERE
from torch_eqsat.errors import RebuildError
from torch_eqsat.planning.acceptance import Acceptance, accept, declined
from torch_eqsat.planning.disturbance import note_disturbance
from torch_eqsat.planning.found import Found, search_regions
from torch_eqsat.planning.job import Job, Trial, prepare
from torch_eqsat.planning.plans.plan import Plan, Planned
from torch_eqsat.planning.plans.plan_store import load_plan, store_plan
from torch_eqsat.planning.ranks import Meeting, meet
from torch_eqsat.planning.setting import Setting
from torch_eqsat.planning.verdict import NARROWING_SECONDS, UNDECIDED, GraphInputs, narrowed
from torch_eqsat.report import GraphReport, RaceReport
from torch_eqsat.search.worker.pool import OVERRUN_SECONDS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What became of a captured graph: whether it was ``rewritten``, how or why not, the plan if there was one, and the
    race if one decided."""

    decision: str
    rewritten: bool = False
    planned: Planned | None = None
    race: RaceReport | None = None


def optimize(graph: Graph, setting: Setting, inputs: GraphInputs, *, folds: bool = True) -> GraphReport:
    """Rewrite ``graph`` in place where that is predicted to pay and checked to be right.

    Until everything is decided and checked, work is done on copies; an exception leaves ``graph`` as it was (but for
    folded factory operators and reads of contiguous memory made views, whose values are bitwise the same). Factory
    operators are only folded if ``folds``.
    """
    calls = sum(node.op == "call_function" for node in graph.nodes)
    target = "" if setting.options.target == HERE else setting.options.target
    prepared = prepare(graph, setting, inputs, folds=folds)
    report = GraphReport(calls, setting.frozen, folded=prepared.folded, target=target)
    if prepared.reason:
        return replace(report, decision=_left(prepared.reason))
    job = Job.of(graph, prepared.setting, inputs)
    return _reported(report, job, _run(job))


def _reported(report: GraphReport, job: Job, result: Result) -> GraphReport:
    """The report on a captured graph."""
    known: dict[str, Any] = dict(vars(job.spent))
    if (planned := result.planned) is not None:
        plan = planned.plan
        known |= {"base_ms": plan.base_ms, "best_ms": plan.best_ms, "regions": list(plan.regions)}
        known |= {"from_plan": planned.stored, "disturbed": planned.disturbed, "refused": list(planned.refused)}
    return replace(
        report, decision=result.decision, changed=result.rewritten, race=result.race, plan_key=job.key, **known
    )


def _run(job: Job) -> Result:
    """Use the stored plan, or make one; with other ranks together."""
    options = job.setting.options
    with meet(options.seconds + options.measure_seconds + OVERRUN_SECONDS) as ranks:
        if ranks is not None:
            return _together(job, ranks)
    if (planned := _stored(job)) is not None:
        try:
            return _carried_out(job, planned)
        except Exception as error:
            logger.warning("plan %s does not fit and is made anew: %s", job.key, error)
            job = job.captured_again()
    return _carried_out(job, _made(job))


def _together(job: Job, ranks: Meeting) -> Result:
    """Rank 0 plans, and all rewrite the graph or none."""

    def make() -> Planned:  # each rank judges it on weights and inputs of its own
        planned = _stored(job) or _made(job)
        return replace(planned, plan=replace(planned.plan, verdicts={}, begun={}))

    planned = ranks.share(f"{job.setting.key} {job.digest}", make)
    if planned is None:
        return Result(_left(ranks.reason))
    return _carried_out(job, planned, ranks.agree)


def _carried_out(job: Job, planned: Planned, agree: Callable[[], bool] = lambda: True) -> Result:
    """Rewrite the graph by a plan if it saves enough, is right, and other ranks ``agree``; store the plan, which
    remembers verdicts, where it is new."""
    accepted = accept(job, planned)
    result = _rebuilt(job, planned, accepted, agree)
    is_new = accepted.plan != planned.plan if planned.stored else planned.may_store
    if job.setting.options.cache and is_new:
        store_plan(job.key, accepted.plan)
    return result


def _rebuilt(job: Job, planned: Planned, accepted: Acceptance, agree: Callable[[], bool]) -> Result:
    reason = accepted.reason
    if not reason and not agree():
        reason = "another rank could not rewrite it"
    if reason:
        return Result(_left(reason), False, planned, accepted.race)
    job.rewrite(accepted.plan)
    return Result(_rewritten(accepted.trial), True, planned, accepted.race)


def _rewritten(trial: Trial | None) -> str:
    if trial is None or trial.added:
        return f"rewritten, {trial.added if trial else 0} calls are new"
    return f"rewritten, {trial.gone} calls are gone"


def _left(reason: str) -> str:
    return f"left as it is: {reason}"


def _stored(job: Job) -> Planned | None:
    plan = load_plan(job.key) if job.setting.options.cache else None
    return None if plan is None else Planned(plan, stored=True)


def _made(job: Job) -> Planned:
    """A plan made by searching, of those regions that are right."""
    options = job.setting.options
    found = search_regions(job.task, job.setting, job.spent, job.repeated)
    plan = found.plan(found.groups)
    disturbed = note_disturbance(plan.regions, job.spent.kernels_failed, strict=options.strict)
    planned = Planned(plan, may_store=not disturbed, disturbed=disturbed)
    if declined(plan, options) or not options.judge:
        return planned
    problem = _problem(job, plan)
    if problem.startswith(UNDECIDED):  # for now: another time there may be more memory
        return replace(planned, may_store=False)
    return _narrowed(job, planned, found, problem) if problem else planned


def _problem(job: Job, plan: Plan) -> str:
    """Why the graph must not be rewritten by ``plan``; "" if it may."""
    try:
        trial = job.trial(plan)
    except RebuildError as error:
        return str(error)
    return "" if trial.is_original else job.judge(plan, trial.graph).problem


def _narrowed(job: Job, planned: Planned, found: Found, problem: str) -> Planned:
    """The plan of those regions that are right, when all of them together have a ``problem``."""

    def problem_of(groups: Collection[str]) -> str:
        return problem if len(groups) == len(found.groups) else _problem(job, found.plan(groups))

    seconds = math.inf if job.setting.options.deterministic else NARROWING_SECONDS
    kept, refused = narrowed(found.groups, problem_of, seconds)
    total = len(found.groups)
    logger.warning("%d of %d regions left as they are: the judge refused %s", len(refused), total, problem)
    decided = not any(reason.startswith(UNDECIDED) for reason in refused.values())
    may_store = planned.may_store and decided
    return replace(planned, plan=found.plan(kept), may_store=may_store, refused=tuple(refused.values()))
