"""All strategies over one environment: what each finds, how each ends, and that ends are answers."""

import functools
from pathlib import Path

import pytest
import torch

from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.errors import OptionError
from torch_eqsat.laws.law import law
from torch_eqsat.rewrites import catalogue
from torch_eqsat.search import limits
from torch_eqsat.search.environment import Environment
from torch_eqsat.search.limits import Limits, SearchStatistics, StopReason
from torch_eqsat.search.parameters import SearchParameters
from torch_eqsat.search.strategies.parts import search_parts
from torch_eqsat.search.strategies.table import STRATEGIES, run_strategy

LAWS = catalogue()
TAME = [law for law in LAWS if not law.expansive]
SEARCHING = sorted(STRATEGIES.keys() - {"none"})


def chain(x, a, b):
    return (x @ a) @ b


def attention_inputs(x, a, b, c):
    """Three products of one narrow input, which are cheaper merged."""
    return torch.relu(x @ a), torch.tanh(x @ b), torch.sigmoid(x @ c)


def search(strategy, task, laws=LAWS, **limits):
    environment = Environment(task, laws, Pricing(frozen=True), Limits(**limits))
    statistics, _ = run_strategy(strategy, environment)
    environment.close()
    return environment, statistics


@pytest.mark.parametrize("strategy", SEARCHING)
def test_association_is_found(strategy, task_of):
    environment, statistics = search(strategy, task_of(chain, (512, 256), (256, 512), (512, 4)), seconds=30.0)
    assert environment.best.cost < 0.2 * environment.base_cost
    assert statistics.stop in (StopReason.SATURATED, StopReason.EXHAUSTED, StopReason.COST)


@pytest.mark.parametrize("strategy", SEARCHING)
def test_merges_are_found(strategy, task_of):
    """The paper's greedy reward does not see a merge; its exact extraction at the end does."""
    task = task_of(attention_inputs, (1, 1024), *[(1024, 1024)] * 3, static=(1, 2, 3))
    environment, _ = search(strategy, task, TAME, seconds=30.0, exact_seconds=1.0)
    assert environment.best.cost < environment.base_cost
    assert environment.best.laws["matmuls_of_one_input"]


def test_none_is_the_original(task_of):
    environment, statistics = search("none", task_of(chain, (512, 256), (256, 512), (512, 4)))
    assert (environment.best.cost, statistics.stop) == (environment.base_cost, StopReason.NOTHING_TO_DO)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_no_time_returns_the_original(strategy, task_of):
    environment, _ = search(strategy, task_of(chain, (512, 256), (256, 512), (512, 4)), seconds=0.0)
    assert environment.best.cost == environment.base_cost


@pytest.mark.parametrize("strategy", SEARCHING)
def test_limit_of_nodes_is_kept(strategy, task_of):
    task = task_of(lambda x, *ws: torch.stack([x @ w for w in ws]).sum(0), (4, 8), *[(8, 8)] * 6)
    limit = len(task.graph) + 20
    environment, _ = search(strategy, task, nodes=limit, seconds=20.0)
    # One right side may be begun below the limit and end above it.
    assert environment.largest_nodes < limit + 40
    assert environment.best.cost <= environment.base_cost


@pytest.mark.parametrize("strategy", SEARCHING)
def test_one_seed_gives_one_result(strategy, task_of):
    def result():
        task = task_of(attention_inputs, (1, 1024), *[(1024, 1024)] * 3, static=(1, 2, 3))
        environment, statistics = search(strategy, task, nodes=len(task.graph) + 20, seconds=60.0, simulations=16)
        return environment.best.graph.digest(), environment.best.cost, environment.best.origin, statistics

    assert result() == result()


class PanicError(BaseException):
    """As egglog's binding has one."""


@pytest.mark.parametrize("strategy", SEARCHING)
@pytest.mark.parametrize(
    ("error", "stop"),
    [
        (KeyboardInterrupt, StopReason.INTERRUPTED),
        (MemoryError, StopReason.OUT_OF_MEMORY),
        (PanicError, StopReason.OUT_OF_MEMORY),
    ],
    ids=["interrupt", "memory", "memory within egglog"],
)
def test_what_was_found_is_kept(strategy, error, stop, task_of):
    task = task_of(chain, (512, 256), (256, 512), (512, 4))
    environment = Environment(task, LAWS, Pricing(frozen=True), Limits(seconds=30.0))

    def fail(found: Environment) -> None:
        raise error("Python API call failed")  # made here: its traceback holds the e-graphs

    environment.on_best = fail
    statistics, _ = run_strategy(strategy, environment)
    environment.close()
    assert statistics.stop is stop and statistics.transient
    assert environment.best.cost < environment.base_cost


def test_unknown_strategy(task_of):
    with pytest.raises(OptionError, match="'best' is none of mcts, paper"):
        search("best", task_of(chain, (4, 4), (4, 4), (4, 4)))


@pytest.mark.parametrize("strategy", SEARCHING)
def test_best_program_never_costs_more(strategy, task_of):
    environment, _ = search(strategy, task_of(chain, (4, 256), (256, 512), (512, 512)), seconds=20.0)
    assert environment.best.cost == environment.base_cost


@law("matmul(a, b)", example="matmul([2, 3], [3, 4])")
def ever_larger(t, a, b):
    """A B = (2 A) (B / 2), and so on without end"""
    return t.matmul(t.mul(a, t.scalar(2.0)), t.mul(b, t.scalar(0.5)))


@pytest.mark.parametrize("strategy", SEARCHING)
def test_law_without_end_ends_at_the_limits(strategy, task_of):
    laws = [*ever_larger, *(law for law in LAWS if law.name.startswith("matmul_is_associative"))]
    task = task_of(chain, (512, 256), (256, 512), (512, 4))
    environment, statistics = search(strategy, task, laws, nodes=200, seconds=600.0, simulations=12)
    assert environment.best.cost < 0.2 * environment.base_cost
    assert environment.largest_nodes < 260
    assert statistics.stop in (
        StopReason.NODES,
        StopReason.SIMULATIONS,
        StopReason.NO_IMPROVEMENT,
        StopReason.EXHAUSTED,  # by cost, for substitution
    )


LIMITS = [{}, {"seconds": 0.0}, {"nodes": 1}, {"nodes": 40, "simulations": 1}]
COMMITTING = SearchParameters(paper_simulations=2, paper_committed_actions=1, paper_least_cost=0.0)
REASONS = {
    "mcts": {StopReason.SATURATED, StopReason.TIME, StopReason.SIMULATIONS, StopReason.NO_IMPROVEMENT},
    "none": {StopReason.NOTHING_TO_DO},
    "paper": {StopReason.TIME, StopReason.NODES, StopReason.COST, StopReason.ACTIONS},
    "saturation": {StopReason.SATURATED, StopReason.TIME, StopReason.NODES},
    "substitution": {StopReason.EXHAUSTED, StopReason.TIME, StopReason.PROGRAMS},
}


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_a_search_ends_for_a_reason_that_has_a_name(strategy, task_of):
    task = task_of(chain, (512, 256), (256, 512), (512, 4))
    stops = set()
    for parameters in (SearchParameters(), COMMITTING):
        for given in LIMITS:
            own = Limits(**{"seconds": 600.0, **given})
            environment = Environment(task, LAWS, Pricing(True), own, parameters=parameters)
            stops.add(run_strategy(strategy, environment)[0].stop)
            environment.close()
    assert all(type(stop) is StopReason for stop in stops)
    assert stops == REASONS[strategy]


@pytest.mark.parametrize("reason", StopReason)
def test_each_reason_is_one_that_something_gives(reason):
    sources = (path.read_text(encoding="utf-8") for path in Path(limits.__file__).parent.rglob("*.py"))
    assert any(f"StopReason.{reason.name}" in source for source in sources)


def test_parts_assume_what_the_whole_may(task_of):
    """They assumed what is granted by default, whatever the user had allowed."""
    task = task_of(lambda x, *ws: functools.reduce(lambda y, w: torch.relu(y @ w), ws, x), (4, 8), *[(8, 8)] * 60)
    environment = Environment(task, LAWS, Pricing(False), Limits(nodes=200, seconds=60.0), granted=frozenset())
    granted = []

    def run(part):
        granted.append(part.granted)
        return SearchStatistics(StopReason.SATURATED, 1, 1)

    search_parts(environment, 64, run)
    assert set(granted) == {frozenset()}
