"""What the search of one graph tells that of another that is equal up to sizes."""

import pytest

from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.rewrites import catalogue
from torch_eqsat.search.environment import Environment
from torch_eqsat.search.hints import Hint, better, gathered, hint_of, skeleton_of
from torch_eqsat.search.limits import Limits, StopReason
from torch_eqsat.search.strategies.table import run_strategy


@pytest.fixture
def chain(task_of):
    """Makes the task of (a b) c, cheaper as a (b c), for some width."""

    def chain_(width, function=lambda a, b, c: (a @ b) @ c):
        return task_of(function, (width, 8), (8, width), (width, 16))

    return chain_


def searched(task, hint=None):
    environment = Environment(task, catalogue(), Pricing(frozen=False), Limits(seconds=1e6), hint=hint)
    statistics, _ = run_strategy("mcts", environment)
    environment.close()
    return statistics, environment


def test_graphs_of_other_sizes_have_one_skeleton(chain):
    graphs = [chain(512).graph, chain(768).graph, chain(512, lambda a, b, c: (a @ b).relu() @ c).graph]
    assert len({graph.digest() for graph in graphs}) == 3
    assert skeleton_of(graphs[0]) == skeleton_of(graphs[1]) != skeleton_of(graphs[2])
    assert gathered(graphs) == [[0, 1], [2]]


def test_a_follower_finds_what_a_search_finds(chain):
    _, leader = searched(chain(512))
    hint = hint_of(leader.best, leader.base_cost)
    assert hint is not None and hint.laws and 0 < hint.gain < 1
    alone, own = searched(chain(768))
    statistics, follower = searched(chain(768), hint)
    assert statistics.stop is StopReason.HINT and alone.stop is not StopReason.HINT
    assert follower.best.cost == own.best.cost < follower.base_cost
    assert follower.work < own.work


@pytest.mark.parametrize("hint", [Hint(frozenset(), 0.1), Hint(frozenset({"no such law"}), 0.1)])
def test_a_follower_that_gains_less_is_searched(chain, hint):
    _, own = searched(chain(768))
    statistics, follower = searched(chain(768), hint)
    assert statistics.stop is not StopReason.HINT
    assert follower.best.cost == own.best.cost


def test_a_search_without_a_gain_gives_no_hint(task_of):
    _, environment = searched(task_of(lambda x: x.relu(), (4, 4)))
    assert hint_of(environment.best, environment.base_cost) is None


def test_the_greatest_gain_is_followed():
    small, large = Hint(frozenset("a"), 0.1), Hint(frozenset("b"), 0.2)
    assert better([small, None, large]) is large
    assert better([None]) is None
