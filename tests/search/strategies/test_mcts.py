"""The tree search on small tasks."""

import torch

from bench.search.whole import search_whole
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.rewrites import catalogue
from torch_eqsat.search.environment import Environment
from torch_eqsat.search.limits import Limits, StopReason
from torch_eqsat.search.strategies.mcts import MonteCarloTreeSearch
from torch_eqsat.search.strategies.table import run_strategy

LAWS = catalogue()


def chain(x, a, b):
    return (x @ a) @ b


def gated(x, a, b, c):
    return torch.relu(((x @ a) @ b) @ c) * 2.0


def search(task, **keywords):
    """The environment and the statistics of a search."""
    environment = Environment(task, LAWS, Pricing(frozen=False), Limits(**keywords))
    statistics = MonteCarloTreeSearch(environment).run()
    environment.close()
    return environment, statistics


def products(program):
    """Shapes of the matrix products of a program."""
    return {
        program.graph.types[i].shape
        for i, node in enumerate(program.graph.nodes)
        if node.op == "matmul" or (node.op == "fx" and "mm" in node["uid"])
    }


def test_association_is_found(task_of):
    environment, statistics = search(task_of(chain, (512, 256), (256, 512), (512, 4)))
    assert statistics.stop is StopReason.SATURATED
    assert environment.best.cost < 0.2 * environment.base_cost
    assert products(environment.best) == {(256, 4), (512, 4)}
    assert environment.best.laws["matmul_is_associative"] >= 1


def test_association_is_found_under_a_limit_of_nodes(task_of):
    task = task_of(gated, (256, 128), (128, 256), (256, 128), (128, 2))
    environment, statistics = search(task, nodes=40, simulations=24, seconds=20.0)
    assert statistics.stop is not StopReason.SATURATED
    assert statistics.simulations > 1
    assert environment.best.cost < 0.5 * environment.base_cost
    assert environment.largest_nodes < 200


def test_costs_fall_along_the_curve(task_of):
    environment, _ = search(task_of(chain, (512, 256), (256, 512), (512, 4)))
    costs = [cost for _, cost in environment.curve]
    assert costs == sorted(costs, reverse=True)
    assert (costs[0], costs[-1]) == (environment.base_cost, environment.best.cost)


def test_one_seed_gives_one_result(task_of):
    def result():
        task = task_of(gated, (256, 128), (128, 256), (256, 128), (128, 2))
        environment, statistics = search(task, nodes=40, simulations=10, seconds=60.0)
        return environment.best.graph.digest(), environment.best.cost, environment.best.origin, statistics

    assert result() == result()


def test_what_the_e_graph_has_room_for_is_not_cut(task_of):
    """Cut for want of room to grow, mobilenet_v2 saved less than plain saturation did under a limit of 500."""

    def products_of(x, *weights):
        for w in weights:
            x = torch.relu(x @ w)
        return x

    task = task_of(products_of, *[(n, n + 1) for n in range(8, 20)])
    laws = [law for law in LAWS if law.family == "matmul"]

    def searches(nodes):
        limits = Limits(nodes, 600.0, simulations=4)
        return len(search_whole(task, laws, Pricing(frozen=False), limits).strategies)

    assert searches(len(task.graph)) == 1 < searches(len(task.graph) - 1)


def test_no_time_returns_the_original(task_of):
    task = task_of(chain, (512, 256), (256, 512), (512, 4))
    environment, statistics = search(task, seconds=0.0)
    assert statistics.stop is StopReason.TIME
    assert environment.best.cost == environment.base_cost
    assert products(environment.best) == {(512, 512), (512, 4)}
    assert not environment.best.laws


def test_nothing_to_gain(task_of):
    environment, _ = search(task_of(chain, (4, 256), (256, 512), (512, 512)))
    assert environment.best.cost == environment.base_cost
    assert products(environment.best) == {(4, 512)}


def test_graph_without_operators(task_of):
    environment, statistics = search(task_of(lambda x: (x, x), (2, 3)))
    assert statistics.stop is StopReason.SATURATED
    assert environment.best.graph.roots == [0]


def test_parts_are_searched_where_the_graph_fills_the_e_graph(task_of):
    """Twelve products to be associated leave no room under the limit; parts of the graph do."""

    def chained(x, *weights):
        for a, b in zip(weights[::2], weights[1::2], strict=True):
            x = torch.relu((x @ a) @ b)
        return x

    shapes = [(256, 64), *[(64, 512), (512, 64)] * 20]
    task = task_of(chained, *shapes)
    laws = [law for law in LAWS if law.family == "matmul"]
    costs = {}
    for strategy in ("saturation", "mcts"):
        environment = Environment(task, laws, Pricing(frozen=False), Limits(nodes=len(task.graph) + 10, seconds=600.0))
        run_strategy(strategy, environment)
        environment.close()
        costs[strategy] = environment.best.cost
    assert costs["mcts"] < 0.9 * costs["saturation"] < environment.base_cost
