"""The search of a whole task in this process: cut, search each distinct region, join."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch_eqsat.cost.model import CostModel
from torch_eqsat.cost.programs import captured_program
from torch_eqsat.ir.program import Program, Task
from torch_eqsat.laws.law import Law
from torch_eqsat.search.environment import Environment
from torch_eqsat.search.limits import Budget, Limits, StopReason, playouts
from torch_eqsat.search.parameters import SearchParameters
from torch_eqsat.search.partition import Partition
from torch_eqsat.search.strategies.table import Strategy, run_strategy


@dataclass
class WholeSearch:
    """What was found: the program, the original's cost (ms), why the searches stopped, the largest e-graph (e-nodes),
    cost (ms) and e-nodes over seconds, and the strategies of the regions, by which their trees can be drawn."""

    program: Program
    base_cost: float
    stop: StopReason = StopReason.NOTHING_TO_DO
    nodes: int = 0
    simulations: int = 0
    curve: list[tuple[float, float]] = field(default_factory=list)
    growth: list[tuple[float, int]] = field(default_factory=list)
    strategies: list[Strategy] = field(default_factory=list)


def search_whole(
    task: Task,
    laws: Sequence[Law],
    pricing: CostModel,
    limits: Limits,
    *,
    strategy: str = "mcts",
    seed: int = 0,
    cut: bool = True,
    parameters: SearchParameters = SearchParameters(),
) -> WholeSearch:
    """Search ``task``; with ``cut`` in regions, each under the limit of nodes and together under that of seconds."""
    start = time.monotonic()
    captured = captured_program(task, pricing)
    result = WholeSearch(captured, captured.cost, curve=[(0.0, captured.cost)])
    # What the e-graph has room for stays whole: the tree search looks at its parts as well.
    calls = sum(node.op == "fx" for node in task.graph.nodes)
    fits = len(task.graph) <= limits.nodes and calls <= parameters.whole_operators
    partition = Partition.of(task, limits.nodes, parameters, cut=cut and not fits)
    programs = partition.captured(pricing)
    weights = partition.weights(programs)
    budget = Budget(limits.seconds, list(weights.values()))
    cost = captured.cost
    for group in partition.by_size():
        share = budget.share(weights[group])
        if result.stop is StopReason.INTERRUPTED:
            continue
        if share <= 0:
            result.stop = StopReason.TIME
            continue
        shared = playouts(limits.simulations, weights[group], sum(weights.values()))
        own = replace(limits, seconds=share, simulations=shared)
        environment = Environment(partition.task_of(group), laws, pricing, own, seed, parameters=parameters)
        offset = environment.started - start
        statistics, ran = run_strategy(strategy, environment)
        environment.close()
        places = len(partition.groups[group])
        # Prices of equal programs differ by the last bits, from orders of summation.
        saved = [(offset + s, cost - places * (environment.base_cost - c)) for s, c in environment.curve]
        result.curve += saved
        cost = saved[-1][1]
        result.growth += [(offset + s, n) for s, n in environment.growth]
        result.strategies.append(ran)
        result.stop, result.simulations = statistics.stop, result.simulations + statistics.simulations
        result.nodes = max(result.nodes, statistics.nodes)
        if environment.best.cost < environment.base_cost:
            programs[group] = environment.best
    result.program = partition.join(programs)
    return result
