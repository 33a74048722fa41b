"""The searches of a graph's regions, and the plans that can be made of what they found."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from torch_eqsat.cost.measure.batch import measure_many
from torch_eqsat.cost.measure.kernels import context_of
from torch_eqsat.cost.measure.pace import Pace
from torch_eqsat.cost.measure.timer import TIMERS
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.cost.programs import captured_program, repeated_ms, residency_of, with_kernels
from torch_eqsat.cost.table import Table, open_table
from torch_eqsat.cost.targets import HERE
from torch_eqsat.ir.program import Task
from torch_eqsat.planning.planner import Planner, Times
from torch_eqsat.planning.plans.plan import Plan
from torch_eqsat.planning.plans.program_json import decode_program, encode_program
from torch_eqsat.planning.setting import Setting
from torch_eqsat.planning.spent import Spent
from torch_eqsat.report import RegionReport
from torch_eqsat.search.partition import Partition
from torch_eqsat.search.regions import Region
from torch_eqsat.search.worker.messages import Outcome
from torch_eqsat.search.worker.pool import WorkerPool


@dataclass(frozen=True)
class Found:
    """What the searches of a graph's regions found; an outcome for each group of equal regions. ``repeated_ms`` is what
    the captured graph computes more than once."""

    partition: Partition
    outcomes: Mapping[str, Outcome]
    pricing: Pricing
    repeated_ms: float = 0.0

    @property
    def groups(self) -> list[str]:
        """The groups that have a better program, in order."""
        return [group for group, outcome in self.outcomes.items() if outcome.program.cost < outcome.base_cost]

    def plan(self, kept: Collection[str]) -> Plan:
        """The plan that rewrites the groups ``kept`` and leaves all others as they are."""
        outcomes = {g: o if g in kept else self._original(g, o) for g, o in self.outcomes.items()}
        rows = [_region_report(outcomes[group], regions) for group, regions in self.partition.groups.items()]
        program = self.partition.join({group: outcome.program for group, outcome in outcomes.items()})
        marked = with_kernels(program.graph, self.pricing)
        # As it is when it comes from the disk, where nothing is believed that can be inferred.
        chosen, origin = decode_program(encode_program(marked, program.origin))
        base_ms = sum(r.count * r.base_ms for r in rows) + self.repeated_ms
        return Plan(base_ms, sum(r.count * r.best_ms for r in rows), tuple(rows), chosen, origin)

    def _original(self, group: str, outcome: Outcome) -> Outcome:
        program = replace(captured_program(self.partition.task_of(group), self.pricing), cost=outcome.base_cost)
        return replace(outcome, program=program)


def search_regions(task: Task, setting: Setting, spent: Spent, repeated: Mapping[int, int]) -> Found:
    """What is found by searching each distinct region once; ``repeated`` are further calls by their term."""
    options = setting.options
    partition = Partition.of(task, options.nodes, setting.parameters)
    device = torch.device(setting.device)
    table = open_table(context_of(device.type))
    with WorkerPool(options.memory_bytes, options.executor) as pool:
        residency = residency_of(task, frozen=setting.frozen)
        planner = Planner(setting, spent, pool, _times(setting, table, spent.kernels_failed), residency)
        outcomes, pricing = planner.search(partition), planner.pricing()
        return Found(partition, outcomes, pricing, repeated_ms(task, repeated, pricing))


def may_measure(setting: Setting) -> bool:
    """Whether kernels are timed here and now."""
    options = setting.options
    return options.target == HERE and not options.deterministic and options.measure_seconds > 0


def _times(setting: Setting, table: Table, failed: dict[str, str]) -> Times:
    """Where the times of kernels come from: measured here if the table lacks them, the table alone, or nowhere. What
    could not be timed, for now, is noted in ``failed``."""
    if setting.options.target != HERE:
        return lambda kernels, until: {}
    if setting.options.deterministic:
        return lambda kernels, until: {k: m.ms for k, m in table.lookup_many(kernel.key for kernel in kernels).items()}
    kind = torch.device(setting.device).type
    timer, pace = TIMERS[kind](), Pace(table.paces_ms()) if kind == "cpu" else None
    return lambda kernels, until: measure_many(kernels, timer, table, until, failed=failed, pace=pace)


def _region_report(outcome: Outcome, regions: Sequence[Region]) -> RegionReport:
    return RegionReport(
        count=len(regions),
        terms=len(regions[0].task.graph),
        base_ms=outcome.base_cost,
        best_ms=outcome.program.cost,
        lower_bound_ms=outcome.lower_bound,
        laws=dict(outcome.program.laws),
        stop=outcome.reason,
        simulations=outcome.simulations,
        nodes=outcome.nodes,
        seconds=outcome.seconds,
        transient=outcome.transient,
    )
