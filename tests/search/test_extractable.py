"""Prices of terms in their graph, and of e-nodes in their e-graph."""

import pytest
import torch

from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.cost.programs import captured_prices, captured_program, changed_ms, cost_of
from torch_eqsat.egraph.egraph import EGraph
from torch_eqsat.ir.program import restarted
from torch_eqsat.ir.term import Node, attributes
from torch_eqsat.rewrites import catalogue
from torch_eqsat.search.actions import Action
from torch_eqsat.search.environment import Environment
from torch_eqsat.search.extractable import Extractable
from torch_eqsat.search.limits import Limits

SHAPES = [(1, 8, 16, 16), (8, 8, 1, 1), (8, 1, 1), (8, 1, 1), (1, 8, 16, 16)]


def block(x, w, scale, shift, y):
    return torch.relu(torch.conv2d(x, w) * scale + shift + y)


def used_twice(x, w, scale, shift, y):
    z = torch.conv2d(x, w)
    return torch.relu(z * scale) + z


def prices(task, **options):
    pricing = Pricing(True, **options)
    price = captured_prices(task, pricing)
    calls = [term for term, node in enumerate(task.graph.nodes) if node.op == "fx"]
    return [sum(map(price, task.parts[call])) for call in calls]


def test_what_follows_a_frozen_convolution_is_free(task_of):
    task = task_of(block, *SHAPES, static=(1, 2, 3))
    convolution, *rest = prices(task, epilogues=True)
    assert convolution > 0 and rest == [0.0] * 4
    assert all(prices(task))
    assert all(prices(task_of(block, *SHAPES), epilogues=True))  # the weight is not known


def test_what_several_use_takes_nothing_in(task_of):
    assert all(prices(task_of(used_twice, *SHAPES, static=(1, 2, 3)), epilogues=True))


@pytest.mark.parametrize("epilogues", [False, True])
def test_an_e_graph_prices_the_captured_program_as_its_terms_do(task_of, epilogues):
    task, pricing = task_of(block, *SHAPES, static=(1, 2, 3)), Pricing(True, epilogues=epilogues)
    egraph = EGraph(catalogue(), 2_000)
    egraph.load(task.graph)
    extractable = Extractable(task, egraph.snapshot())
    problem = extractable.problem(pricing)
    captured = captured_program(task, pricing)
    original = sum(problem.node_cost[chosen] for chosen in extractable.original().values())
    assert original == pytest.approx(captured.cost, rel=1e-3)
    assert cost_of(task, captured, pricing) == pytest.approx(captured.cost, rel=1e-3)
    egraph.close()


def test_the_work_that_a_program_changes(task_of):
    task = task_of(lambda x, a, b: (x @ a) @ b, (64, 256), (256, 64), (64, 4))
    pricing = Pricing(False)
    assert changed_ms(task, captured_program(task, pricing), pricing) == (0.0, 0.0)
    environment = Environment(task, catalogue(), pricing, Limits(nodes=500))
    while environment.step(Action("all", environment.laws))[0]:
        pass
    environment.evaluate()
    environment.close()
    changed = sum(changed_ms(task, environment.best, pricing))
    # Each product is replaced by another.
    assert changed == pytest.approx(environment.base_cost + environment.best.cost, rel=1e-3)


def test_an_item_of_a_tuple_keeps_its_meaning_in_a_restarted_task(task_of):
    """The meaning of the item names operands of the call: in a program, those that the program has."""

    def attention(x, w):
        q = (x @ w).view(1, 16, 4, 8).permute(0, 2, 1, 3)
        return torch.nn.functional.scaled_dot_product_attention(q, q, q)

    task = task_of(attention, (16, 32), (32, 32))
    program = captured_program(task, Pricing(False))
    for index, node in enumerate(program.graph.nodes):  # the same program, with another name for each operand
        if node.op == "fx" and "permute" in node["uid"]:
            program.graph.nodes[index] = Node("permute", attributes(dims=(0, 2, 1, 3)), node.children)
            del program.meaning[index], program.captured[index]
    again = restarted(task, program)
    calls = [term for term, node in enumerate(again.graph.nodes) if node.op == "fx"]
    assert set(calls) <= set(again.captured)
