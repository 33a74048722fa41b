"""Searches the parts of a task that is too large for one e-graph, each in e-graphs of its own, and joins them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch_eqsat.cost.programs import captured_program
from torch_eqsat.ir.program import Program
from torch_eqsat.search.environment import Environment
from torch_eqsat.search.limits import Budget, SearchStatistics, playouts
from torch_eqsat.search.regions import Region, join_programs, split_into_regions


def search_parts(
    environment: Environment, simulations: int, run: Callable[[Environment], SearchStatistics]
) -> tuple[Program | None, int]:
    """The program made of the best ones that ``run`` finds for each part of the environment's task, with at most
    ``simulations`` playouts (one a part at least), and the playouts; None if the task is no larger than a part."""
    limits, parameters = environment.limits, environment.parameters
    nodes = min(limits.nodes, parameters.largest_limit_of_parts) // parameters.room_of_parts
    regions = split_into_regions(environment.task, nodes, parameters)
    if len(regions) < 2:
        return None, 0
    groups: dict[str, list[Region]] = {}
    for region in regions:
        groups.setdefault(region.task.graph.digest(), []).append(region)
    programs = {digest: captured_program(group[0].task, environment.pricing) for digest, group in groups.items()}
    weights = {digest: len(group) * programs[digest].cost for digest, group in groups.items()}
    budget = Budget(environment.seconds_left, list(weights.values()))
    made = 0
    for digest, group in sorted(groups.items(), key=lambda item: len(item[1][0].task.graph)):
        share = playouts(simulations, weights[digest], sum(weights.values()))
        seconds = budget.share(weights[digest])
        own = replace(limits, seconds=seconds, simulations=share, exact_seconds=0.0, work=limits.work / len(groups))
        part = Environment(
            group[0].task,
            environment.laws,
            environment.pricing,
            own,
            environment.seed,
            granted=environment.granted,
            parameters=parameters,
        )
        made += run(part).simulations
        part.close()
        environment.largest_nodes = max(environment.largest_nodes, part.largest_nodes)
        environment.work += part.work
        if part.best.cost < part.base_cost:
            programs[digest] = part.best
    return join_programs(environment.task, regions, [programs[r.task.graph.digest()] for r in regions]), made
