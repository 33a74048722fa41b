"""The parameters of a search: each is described where it is declared, and does what it says."""

import ast
import inspect
import pickle
from dataclasses import fields
from itertools import pairwise

import pytest
import torch

from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.rewrites import catalogue
from torch_eqsat.search import parameters as declaring
from torch_eqsat.search.environment import Environment
from torch_eqsat.search.limits import Limits
from torch_eqsat.search.parameters import SearchParameters
from torch_eqsat.search.strategies.table import run_strategy


def described() -> dict[str, str]:
    """The string below each field of the class."""
    (body,) = (n.body for n in ast.parse(inspect.getsource(declaring)).body if isinstance(n, ast.ClassDef))
    return {
        field.target.id: " ".join(below.value.value.split())
        for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr)
    }


def test_each_field_says_its_unit_and_what_it_does():
    texts = described()
    assert texts.keys() == {field.name for field in fields(SearchParameters)}
    for name, text in texts.items():
        unit, _, rest = text.partition(". ")
        assert unit and len(unit.split()) <= 8 and rest.endswith("."), f"{name}: {text}"


def test_parameters_are_values():
    changed = SearchParameters(patience=1)
    assert pickle.loads(pickle.dumps(changed)) == changed != SearchParameters()
    assert "patience=1," in repr(changed) and repr(changed) != repr(SearchParameters())


def gated(x, a, b, c):
    return torch.relu(((x @ a) @ b) @ c) * 2.0


@pytest.mark.parametrize(("strategy", "changed"), [("mcts", {"patience": 0}), ("paper", {"paper_simulations": 2})])
def test_a_search_goes_by_the_parameters_of_its_environment(strategy, changed, task_of):
    task = task_of(gated, (256, 128), (128, 256), (256, 128), (128, 2))
    made = []
    for parameters in (SearchParameters(), SearchParameters(**changed)):
        limits = Limits(nodes=40, seconds=600.0, simulations=24)
        environment = Environment(task, catalogue(), Pricing(frozen=False), limits, parameters=parameters)
        statistics, _ = run_strategy(strategy, environment)
        environment.close()
        made.append(statistics.simulations)
    assert made[1] < made[0]
