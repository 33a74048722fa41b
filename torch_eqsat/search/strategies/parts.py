"""Searches the parts of a task that is too large for one e-graph, each in e-graphs of its own, and joins them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch_eqsat.ir.program import Program
from torch_eqsat.search.environment import Environment
from torch_eqsat.search.hints import Hint, better, hint_of, skeleton_of
from torch_eqsat.search.limits import Budget, SearchStatistics, playouts
from torch_eqsat.search.partition import Partition


def search_parts(
    environment: Environment, simulations: int, run: Callable[[Environment], SearchStatistics]
) -> tuple[Program | None, int]:
    """The program made of the best ones that ``run`` finds for each part of the environment's task, with at most
    ``simulations`` playouts (one a part at least), and the playouts; None if the task is no larger than a part."""
    limits, parameters = environment.limits, environment.parameters
    nodes = min(limits.nodes, parameters.largest_limit_of_parts) // parameters.room_of_parts
    partition = Partition.of(environment.task, nodes, parameters)
    if len(partition.regions) < 2:
        return None, 0
    programs = partition.captured(environment.pricing)
    weights = partition.weights(programs)
    budget = Budget(environment.seconds_left, list(weights.values()))
    made = 0
    hints: dict[str, Hint | None] = {}
    for group in partition.by_size():
        share = playouts(simulations, weights[group], sum(weights.values()))
        seconds, work = budget.share(weights[group]), limits.work / len(partition.groups)
        own = replace(limits, seconds=seconds, simulations=share, exact_seconds=0.0, work=work)
        part = Environment(
            partition.task_of(group),
            environment.laws,
            environment.pricing,
            own,
            environment.seed,
            granted=environment.granted,
            parameters=parameters,
            workshop=environment.shop,
            hint=hints.get(skeleton := skeleton_of(partition.task_of(group).graph)),
        )
        made += run(part).simulations
        hints[skeleton] = better([part.hint, hint_of(part.best, part.base_cost)])
        part.close()
        environment.largest_nodes = max(environment.largest_nodes, part.largest_nodes)
        environment.work += part.work
        if part.best.cost < part.base_cost:
            programs[group] = part.best
    return partition.join(programs), made
