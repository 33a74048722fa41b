"""Extraction on random e-graphs, against brute force, and on e-graphs made to be hard."""

from __future__ import annotations

import time
from itertools import product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch_eqsat.extract.extract import extract, lower_bound
from torch_eqsat.extract.greedy import greedy, greedy_choices
from torch_eqsat.extract.local_search import local_search
from torch_eqsat.extract.problem import (
    Choices,
    ExtractionProblem,
    InvalidExtractionError,
    NoExtractionError,
    build_problem,
    check,
    dag_cost,
)
from torch_eqsat.extract.reduce import reduce_problem


@st.composite
def problems(draw: st.DrawFn) -> ExtractionProblem:
    """Small e-graphs with cycles, self loops, repeated operands, free e-nodes and several roots."""
    class_count = draw(st.integers(1, 7))
    classes = st.integers(0, class_count - 1)
    children = st.lists(classes, max_size=3).map(tuple)
    costs = st.sampled_from([0.0, 0.0, 1.0, 2.0, 3.5, 10.0])
    nodes = draw(st.lists(st.tuples(classes, children, costs), min_size=1, max_size=14))
    roots = draw(st.lists(classes, min_size=1, max_size=2, unique=True).map(tuple))
    return build_problem(nodes, roots, class_count)


def all_extractions(problem: ExtractionProblem) -> list[tuple[float, Choices]]:
    """Every valid extraction with its cost."""
    extractions = []
    for combination in product(*(nodes or [None] for nodes in problem.class_nodes)):
        choices = {owner: node for owner, node in enumerate(combination) if node is not None}
        try:
            extractions.append((dag_cost(problem, choices), choices))
        except InvalidExtractionError:
            continue
    return extractions


def merged_products(users: int) -> tuple[ExtractionProblem, Choices]:
    """One input, ``users`` products of 4 ms each, and one wide product of 5 ms that all of them could slice."""
    first, wide, pair = 1, users + 1, users + 2
    nodes = [(0, (), 0.0)]
    nodes += [(first + user, (0,), 4.0) for user in range(users)]
    nodes += [(first + user, (pair,), 0.0) for user in range(users)]
    # The wide product also is the concatenation of the narrow ones, a way round in which nothing is computed.
    nodes += [(wide, (0,), 5.0), (wide, tuple(range(first, first + users)), 0.5), (pair, (wide,), 0.0)]
    problem = build_problem(nodes, tuple(range(first, first + users)), users + 3)
    return problem, {0: 0} | {first + user: 1 + user for user in range(users)}


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(problem=problems(), data=st.data())
def test_never_worse_than_the_incumbent_and_exact_with_milp(problem: ExtractionProblem, data: st.DataObject) -> None:
    extractions = all_extractions(problem)
    if not extractions:
        with pytest.raises(NoExtractionError):
            extract(problem)
        return
    cost, incumbent = data.draw(st.sampled_from(extractions))
    best = min(extraction[0] for extraction in extractions)
    for start in (None, incumbent):
        found = extract(problem, incumbent=start, rounds=1)
        check(problem, found.choices)
        assert found.cost == pytest.approx(dag_cost(problem, found.choices))
        assert best - 1e-9 <= found.cost <= (cost if start else dag_cost(problem, greedy(problem))) + 1e-9
        assert found.choices == extract(problem, incumbent=start, rounds=1).choices
    exact = extract(problem, incumbent=incumbent, milp_seconds=10.0)
    assert exact.cost == pytest.approx(best)
    assert exact.lower_bound == pytest.approx(best)
    assert exact.stop == "optimal"


@settings(deadline=None, max_examples=300)
@given(problem=problems())
def test_reduction_keeps_the_least_cost(problem: ExtractionProblem) -> None:
    extractions = all_extractions(problem)
    if not extractions:
        return
    reduced = reduce_problem(problem)
    best = min(extraction[0] for extraction in extractions)
    assert min(extraction[0] for extraction in all_extractions(reduced.problem)) == pytest.approx(best)
    for cost, choices in extractions[:50]:
        translated = reduced.reduce_choices(choices)
        assert dag_cost(reduced.problem, translated) <= cost + 1e-9
        restored = reduced.restore_choices(translated)
        assert dag_cost(problem, restored) == pytest.approx(dag_cost(reduced.problem, translated))


@settings(deadline=None, max_examples=300)
@given(problem=problems())
def test_nothing_costs_less_than_the_lower_bound(problem: ExtractionProblem) -> None:
    extractions = all_extractions(problem)
    if not extractions:
        return
    least = min(cost for cost, _ in extractions)
    for _, choices in extractions[:3]:
        assert lower_bound(problem, choices) <= least + 1e-9


@pytest.mark.parametrize("users", [2, 3, 5])
def test_users_turn_to_a_shared_computation_together(users: int) -> None:
    problem, incumbent = merged_products(users)
    assert dag_cost(problem, greedy(problem)) == 4.0 * users  # no single e-class gains
    found = extract(problem, incumbent=incumbent)
    assert found.cost == 5.0
    assert found.stop == "local optimum"


def test_only_those_users_turn_that_gain() -> None:
    # The third user would pay 4.5 ms for its slice and keeps its own product of 4 ms.
    nodes = [(0, (), 0.0), (1, (0,), 4.0), (2, (0,), 4.0), (3, (0,), 4.0)]
    nodes += [(1, (4,), 0.0), (2, (4,), 0.0), (3, (4,), 4.5), (4, (0,), 5.0)]
    problem = build_problem(nodes, (1, 2, 3), 5)
    found = extract(problem)
    assert found.cost == 9.0
    assert found.choices[3] == 3


def test_local_search_works_on_cost_changes_of_shared_parts() -> None:
    # Turning class 3 to its dearer e-node frees class 1 as well: 3 ms less, although the e-node costs 1 ms more.
    nodes = [(0, (), 1.0), (1, (0,), 4.0), (3, (1,), 1.0), (3, (0,), 2.0)]
    problem = build_problem(nodes, (3,), 4)
    assert local_search(problem, {0: 0, 1: 1, 3: 2}, deadline=None, seed=0, rounds=0).choices == {0: 0, 3: 3}


def test_a_chain_changes_its_layout_as_a_whole() -> None:
    # Each of 10 steps costs 2 ms, or 1 ms in the other layout; changing the layout costs 1.5 ms either way.
    length, other = 10, 11
    nodes = [(0, (), 0.0), (other, (0,), 1.5)]
    for step in range(1, length + 1):
        nodes += [(step, (step - 1,), 2.0), (other + step, (other + step - 1,), 1.0)]
        nodes += [(step, (other + step,), 1.5), (other + step, (step,), 1.5)]
    problem = build_problem(nodes, (length,), 2 * length + 2)
    incumbent = {step: problem.class_nodes[step][0] for step in range(length + 1)}
    assert dag_cost(problem, incumbent) == 20.0
    assert extract(problem, incumbent=incumbent).cost == 13.0


def test_self_loop_is_never_chosen() -> None:
    problem = build_problem([(0, (0,), 0.0), (0, (), 3.0)], (0,), 1)
    assert extract(problem, milp_seconds=1.0).choices == {0: 1}
    with pytest.raises(InvalidExtractionError, match="needs itself"):
        check(problem, {0: 0})


def test_only_a_self_loop_is_no_extraction() -> None:
    problem = build_problem([(0, (0,), 1.0)], (0,), 1)
    with pytest.raises(NoExtractionError):
        extract(problem)
    with pytest.raises(NoExtractionError):
        extract(problem, milp_seconds=1.0)


def test_repeated_operand_is_counted_once() -> None:
    problem = build_problem([(0, (), 2.0), (1, (0, 0), 1.0)], (1,), 2)
    assert extract(problem).cost == 3.0


def test_unreachable_and_empty_classes_are_left_out() -> None:
    problem = build_problem([(0, (), 1.0), (1, (), 1.0), (0, (2,), 0.5)], (0,), 3)
    assert extract(problem, incumbent={0: 0, 1: 1}).choices == {0: 0}


def test_incumbent_must_be_valid() -> None:
    problem = build_problem([(0, (1,), 1.0), (1, (), 1.0)], (0,), 2)
    with pytest.raises(InvalidExtractionError, match="e-class 1 is needed"):
        extract(problem, incumbent={0: 0})
    with pytest.raises(InvalidExtractionError, match="not one of its own"):
        extract(problem, incumbent={0: 1, 1: 1})


def test_free_roots_cost_nothing() -> None:
    problem = build_problem([(0, (), 0.0), (1, (0,), 0.0)], (1,), 2)
    assert extract(problem, milp_seconds=1.0, rounds=1).cost == 0.0


def test_past_deadline_returns_the_incumbent() -> None:
    problem, incumbent = merged_products(4)
    found = extract(problem, incumbent=incumbent, deadline=time.monotonic() - 1.0, milp_seconds=5.0)
    assert found.choices == incumbent
    assert found.stop == "deadline"
    assert extract(problem, deadline=time.monotonic() - 1.0).choices == greedy(problem)


def test_flips_bound_the_work() -> None:
    problem, incumbent = merged_products(4)
    assert extract(problem, incumbent=incumbent, most_flips=0).choices == incumbent
    assert extract(problem, incumbent=incumbent, most_flips=0).stop == "deadline"
    assert extract(problem, incumbent=incumbent, most_flips=10_000).cost == 5.0


def layered(seed: int) -> ExtractionProblem:
    """120 e-classes that mostly use the 25 before them, sometimes those after them."""
    generator = Random(seed)
    nodes: list[tuple[int, tuple[int, ...], float]] = []
    for owner in range(120):
        lowest = max(0, owner - 25)
        for _ in range(generator.choice([1, 2, 3, 4])):
            arity = generator.choice([0, 1, 2, 2, 3]) if owner > 6 else 0
            highest = [owner if generator.random() < 0.85 else min(120, owner + 15) for _ in range(arity)]
            children = tuple(generator.randrange(lowest, high) for high in highest)
            nodes.append((owner, children, generator.choice([0, 0.1, 0.5, 1, 2, 5, 8]) if arity else 6.0))
    return build_problem(nodes, (119, 118, 117), 120)


@pytest.mark.parametrize("seed", [10, 30])
def test_annealing_leaves_local_optima(seed: int) -> None:
    problem = layered(seed)
    annealed, exact = extract(problem, rounds=2), extract(problem, milp_seconds=10.0)
    assert annealed.cost < extract(problem).cost - 1e-6
    assert annealed.cost == pytest.approx(exact.cost)
    assert exact.stop == "optimal"


def diamonds(count: int) -> ExtractionProblem:
    """A chain of diamonds, whose tree cost is exponential; every e-class also has a dearer e-node."""
    nodes = [(0, (), 1.0)]
    for top in range(0, 3 * count, 3):
        nodes += [(top + 1, (top,), 1.0), (top + 2, (top,), 1.0), (top + 3, (top + 1, top + 2), 1.0)]
    nodes += [(owner, children, cost + 0.5) for owner, children, cost in nodes]
    return build_problem(nodes, (3 * count,), 3 * count + 1)


def test_greedy_is_fast_on_deep_graphs() -> None:
    problem = diamonds(3000)
    start = time.monotonic()
    choices = greedy(problem)
    assert time.monotonic() - start < 2.0
    assert dag_cost(problem, choices) == 9001.0


def test_search_is_fast_on_deep_graphs() -> None:
    problem = diamonds(2000)
    nodes = len(problem.class_nodes)
    worst = {owner: node for owner in range(nodes) for node in [max(problem.class_nodes[owner])]}
    start = time.monotonic()
    assert extract(problem, incumbent=worst).cost == 6001.0
    assert time.monotonic() - start < 2.0


def test_greedy_relative_to_an_incumbent_counts_only_what_is_new() -> None:
    problem = build_problem([(0, (), 5.0), (1, (0,), 1.0), (2, (0,), 2.0), (2, (), 3.0)], (1,), 3)
    assert greedy_choices(problem, {0: 0, 1: 1}).added_cost == {0: 0.0, 1: 0.0, 2: 2.0}


@pytest.mark.parametrize("nodes", [[(0, (), float("nan"))], [(0, (), -1.0)], [(0, (3,), 1.0)]])
def test_malformed_problems_are_refused(nodes: list[tuple[int, tuple[int, ...], float]]) -> None:
    with pytest.raises(ValueError, match="e-node 0"):
        build_problem(nodes, (0,), 1)
