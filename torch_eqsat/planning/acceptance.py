"""Whether a graph is to be rewritten by a plan: the plan has to save enough and to be right, and the rewritten graph
must not lose where both are timed."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from torch.fx import Graph

from torch_eqsat.cost.targets import HERE
from torch_eqsat.errors import RebuildError, first_line
from torch_eqsat.graph.copies import copy_of
from torch_eqsat.options import Options
from torch_eqsat.planning.job import Job, Trial
from torch_eqsat.planning.plans.plan import Plan, Planned
from torch_eqsat.planning.race import race
from torch_eqsat.planning.verdict import GraphInputs
from torch_eqsat.report import RaceReport
from torch_eqsat.verification.hard_inputs import sample_inputs

logger = logging.getLogger(__name__)

RACE_SECONDS = 3.0  # for timing the original and the rewritten graph in turn


@dataclass(frozen=True)
class Acceptance:
    """What is decided on a plan: why the graph is left as it is ("" if it is to be rewritten), the ``trial`` of it, and
    the ``race`` if one decided. The ``plan`` remembers what was learned of it."""

    plan: Plan
    reason: str = ""
    trial: Trial | None = None
    race: RaceReport | None = None


def accept(job: Job, planned: Planned) -> Acceptance:
    """Decide on a plan: by what it promises, by the judge, and by a race."""
    plan, options = planned.plan, job.setting.options
    if reason := declined(plan, options):
        return Acceptance(plan, _refused(planned.refused[0]) if planned.refused else reason)
    try:
        trial = job.trial(plan)
    except RebuildError as error:
        return Acceptance(plan, _refused(str(error)))
    if trial.is_original:
        return Acceptance(plan, "the chosen program is the original")
    if options.judge:
        verdict = job.judge(plan, trial.graph)
        plan = verdict.noted_in(plan)
        if verdict.problem:
            logger.warning("left as it is: %s", _refused(verdict.problem))
            return Acceptance(plan, _refused(verdict.problem))
    if not options.measure:
        return Acceptance(plan, trial=trial)
    found = plan.race or _raced(job.capture.fx, trial.graph, job.inputs)
    if found.failed:  # which another process may try again
        return Acceptance(plan, f"it could not be timed ({found.note})", trial, found)
    return Acceptance(replace(plan, race=found), _lost(found, plan, options), trial, found)


def declined(plan: Plan, options: Options) -> str:
    """Why ``plan`` is not worth to be used, or must not; "" if it is."""
    if options.target != HERE:
        return f"the plan is for {options.target}, at estimated prices"
    if _promises(plan, options) or (options.measure and plan.saved_ms > 0):
        return ""
    return _too_little(plan)


def _promises(plan: Plan, options: Options) -> bool:
    return plan.saved_ms > options.min_saving * plan.base_ms


def _too_little(plan: Plan) -> str:
    return f"the best program found saves {plan.saved_ms / max(plan.base_ms, 1e-12):.1%}"


def _refused(problem: str) -> str:
    return f"the rewritten graph was refused ({problem})"


def _lost(found: RaceReport, plan: Plan, options: Options) -> str:
    """Why the rewritten graph is not taken after a race; "" if it is."""
    if found.winner == "original":
        return "the original graph is faster"
    return "" if found.winner or _promises(plan, options) else _too_little(plan)


def _raced(original: Graph, rewritten: Graph, inputs: GraphInputs) -> RaceReport:
    """Which graph is faster, as measured now. Where there is no difference beyond the noise the winner is left open:
    the table, which is still the best that is known, decides."""
    try:
        values = sample_inputs(original, inputs.values)
        found = race([copy_of(original), rewritten], inputs.weights, values, RACE_SECONDS)
    except Exception as error:
        report = RaceReport(0.0, 0.0, "", first_line(error))
        logger.warning("the graphs cannot be timed, the original is kept: %s", report.note)
        return report
    before, after = found.ms
    winner = "original" if found.faster(0, 1) else "rewritten" if found.faster(1, 0) else ""
    return RaceReport(before, after, winner, "" if winner else "the difference is within the noise")
