"""Cutting a graph into regions and joining their programs."""

from dataclasses import replace

import torch

from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.egraph.egraph import EGraph
from torch_eqsat.extract.extract import extract
from torch_eqsat.graph.capture import capture
from torch_eqsat.ir.program import Program, Task
from torch_eqsat.search.extractable import Extractable
from torch_eqsat.search.parameters import SearchParameters
from torch_eqsat.search.regions import grouped, join_programs, split_into_regions


def original(task) -> Program:
    """The task's own program."""
    egraph = EGraph([])
    egraph.load(task.graph)
    extractable = Extractable(task, egraph.snapshot())
    egraph.close()
    found = extract(extractable.problem(Pricing(frozen=False)), incumbent=extractable.original(), deadline=0.0)
    return extractable.program(extractable.original(), found.cost)


def cut(smallest: int) -> SearchParameters:
    """Every graph is cut, into regions of at least so many operators."""
    return SearchParameters(whole_operators=1, smallest_region=smallest)


def deep(x, *weights):
    for a, b in zip(weights[::2], weights[1::2], strict=True):
        x = torch.relu(torch.sin(x @ a)) @ b
        x = torch.tanh(x)
    return x


def deep_task(task_of, layers=4, static=()):
    return task_of(deep, (2, 8), *[(8, 8)] * (2 * layers), static=static)


def written(graph):
    """The graph as nested terms: what it computes, whatever the order of its nodes."""
    texts = []
    for node in graph.nodes:
        texts.append(f"{node.op}{node.attrs}({', '.join(texts[child] for child in node.children)})")
    return [texts[root] for root in graph.roots]


def test_small_graphs_stay_whole(task_of):
    task = deep_task(task_of)
    (region,) = split_into_regions(task)
    assert written(region.task.graph) == written(task.graph)
    assert set(region.leaves.values()) == {t for t, n in enumerate(task.graph.nodes) if n.op == "input"}


def test_equal_layers_are_equal_regions(task_of):
    regions = split_into_regions(deep_task(task_of), parameters=cut(4))
    assert len(regions) == 4
    assert len({region.task.graph.digest() for region in regions}) == 1


def test_layers_that_share_a_number_are_equal_regions(task_of):
    def function(x, *weights):
        for w in weights:
            x = torch.tanh(x @ w + 1.0)
        return x

    regions = split_into_regions(task_of(function, (2, 8), *[(8, 8)] * 4), parameters=cut(3))
    assert len(regions) == 4
    assert len({region.task.graph.digest() for region in regions}) == 1


def test_constants_tell_regions_apart(task_of):
    regions = split_into_regions(deep_task(task_of, static={1, 2}), parameters=cut(4))
    assert len({region.task.graph.digest() for region in regions}) == 2


def test_smallest_region(task_of):
    assert len(split_into_regions(deep_task(task_of), parameters=cut(10))) == 2
    assert len(split_into_regions(deep_task(task_of), parameters=cut(100))) == 1


def check_round_trip(task, regions):
    programs = [original(region.task) for region in regions]
    program = join_programs(task, regions, programs)
    joined, origin = program.graph, program.origin
    assert written(joined) == written(task.graph)
    assert len(origin) == len(joined)
    for index, source in enumerate(origin):
        assert joined.types[index] == task.graph.types[source]
        assert joined.constant[index] == task.graph.constant[source]


def test_original_programs_join_to_the_original(task_of):
    task = deep_task(task_of)
    for smallest in (1, 4, 9, 100):
        check_round_trip(task, split_into_regions(task, parameters=cut(smallest)))


def test_equal_regions_share_a_program(task_of):
    task = deep_task(task_of)
    regions = split_into_regions(task, parameters=cut(4))
    first = original(regions[0].task)
    joined = join_programs(task, regions, [first] * len(regions))
    assert written(joined.graph) == written(task.graph)


def residual(x, y, *weights):
    for w in weights:
        x = torch.relu(x @ w) + x
        x = torch.sigmoid(x * y)
    return x, x.sum(), y


def test_values_read_across_cuts_and_several_outputs(task_of):
    task = task_of(residual, (4, 4), (4,), *[(4, 4)] * 3)
    regions = split_into_regions(task, parameters=cut(1))
    assert len(regions) > 1
    check_round_trip(task, regions)


def early(x, *weights):
    first = torch.relu(x @ weights[0])
    y = first
    for w in weights[1:]:
        y = torch.relu(y @ w)
    return first, y


def test_early_outputs_and_unused_inputs(task_of):
    task = task_of(lambda unused, *rest: early(*rest), (7,), (4, 4), *[(4, 4)] * 3)
    check_round_trip(task, split_into_regions(task, parameters=cut(1)))


def test_tuples_are_not_cut(task_of):
    def function(x, w):
        for _ in range(3):
            values, indices = torch.relu(x @ w).sort(dim=-1)
            x = torch.relu(values * indices)
        return x

    task = task_of(function, (4, 4), (4, 4))
    regions = split_into_regions(task, parameters=cut(1))
    assert len(regions) > 1
    check_round_trip(task, regions)


def test_regions_are_equal_where_their_inputs_are_late_alike(trace):
    """A merge of two late values is none where only one is late."""

    def both(x, t, w, v):
        def step(a, b):
            return torch.tanh(torch.sin(a @ w) + torch.cos(b @ v))

        early, late = step(x, x), step(t, t)
        return step(early, late), step(late, early)

    graph = trace(both, *(torch.rand(4, 4) for _ in range(4))).graph
    graph.find_nodes(op="placeholder")[1].target = "tangents_1"
    captured = capture(graph)
    regions = split_into_regions(Task(captured.graph, captured.parts), parameters=replace(cut(6), largest_region=6))
    assert [len(group) for group in grouped(regions).values()] == [1, 1, 1, 1]
