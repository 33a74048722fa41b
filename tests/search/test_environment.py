"""Moving between e-graphs, rebasing on programs."""

import torch

from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.cost.programs import captured_program
from torch_eqsat.ir.program import restarted
from torch_eqsat.laws.law import law
from torch_eqsat.rewrites import catalogue
from torch_eqsat.search.actions import Action, actions_of
from torch_eqsat.search.environment import Environment
from torch_eqsat.search.limits import Limits

LAWS = catalogue()
EVERYTHING = actions_of(LAWS)[0]


def gated(x, a, b, c):
    return torch.relu(((x @ a) @ b) @ c) * 2.0


def environment_of(task_of):
    task = task_of(gated, (256, 128), (128, 256), (256, 128), (128, 2))
    return Environment(task, LAWS, Pricing(frozen=False), Limits(nodes=500, seconds=60.0))


def test_pop_goes_back(task_of):
    environment = environment_of(task_of)
    before = environment.state
    environment.push()
    changed, _ = environment.step(EVERYTHING)
    assert changed and environment.state != before
    environment.pop()
    assert environment.state == before


@law("matmul(matmul(a, b), c)", example="matmul(matmul([2, 3], [3, 4]), [4, 5])")
def associate(t, a, b, c):
    """(A B) C = A (B C)"""
    return t.matmul(a, t.matmul(b, c))


@law("p := permute(m := matmul(a, b))", example="permute(matmul([2, 3], [3, 4]), dims=[1, 0])")
def transpose(t, p, m, a, b):
    """(A B)ᵀ = Bᵀ Aᵀ"""
    return t.matmul(t.permute(b, (1, 0)), t.permute(a, (1, 0)))


def test_equal_states_in_whatever_order(task_of):
    def function(x, a, b, c):
        return (x @ a) @ b, (x @ c).transpose(0, 1)

    laws = [*associate, *transpose]
    environment = Environment(task_of(function, *[(8, 8)] * 4), laws, Pricing(False), Limits(nodes=500))
    states = []
    for order in ((associate, transpose), (transpose, associate)):
        environment.push()
        states.append([environment.state])
        for laws in order:
            changed, _ = environment.step(Action(laws[0].name, tuple(laws)))
            assert changed
            states[-1].append(environment.state)
        environment.pop()
    assert states[0][0] == states[1][0] and states[0][1] != states[1][1] and states[0][2] == states[1][2]


def test_rebase_begins_with_the_best_program(task_of):
    environment = environment_of(task_of)
    environment.push()
    while environment.step(EVERYTHING)[0]:
        pass
    cost, size = environment.evaluate(), environment.egraph.size
    assert cost < environment.base_cost
    assert environment.rebase()
    assert environment.egraph.size < size
    assert environment.evaluate() <= cost * (1 + 1e-6)
    before = environment.state
    environment.push()
    environment.step(EVERYTHING)
    environment.pop()
    assert environment.state == before
    assert not environment.rebase()  # it is the best already
    environment.pop()
    assert environment.evaluate() == environment.base_cost


def test_origins_survive_a_rebase(task_of):
    environment = environment_of(task_of)
    while environment.step(EVERYTHING)[0]:
        pass
    environment.evaluate()
    task = environment.task
    again = restarted(task, environment.best)
    program = captured_program(again, environment.pricing)
    for index, origin in enumerate(program.origin):
        if origin >= 0:
            assert program.graph.types[index] == task.graph.types[origin]
    assert [program.origin[root] for root in program.graph.roots] == task.graph.roots


def test_restarting_the_captured_program_changes_nothing(task_of):
    task = task_of(gated, (256, 128), (128, 256), (256, 128), (128, 2))
    environment = Environment(task, LAWS, Pricing(frozen=False), Limits(nodes=500))
    again = restarted(task, environment.best)
    other = Environment(again, LAWS, Pricing(frozen=False), Limits(nodes=500))
    assert other.base_cost == environment.base_cost
    environment.step(EVERYTHING)
    other.step(EVERYTHING)
    assert other.evaluate() == environment.evaluate()
