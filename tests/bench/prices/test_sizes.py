"""The bench of many sizes tells a wrong result, another compilation and another guard."""

import pytest
import torch

from bench.models.sized_models import SizedModel
from bench.prices import sizes
from bench.trust.in_process import searching_here

AS_GIVEN = sizes.ours


@pytest.fixture(autouse=True)
def few_sizes(monkeypatch):
    monkeypatch.setattr(sizes, "TOKENS", ((7, 5), (2, 3), (5, 6)))
    monkeypatch.setattr(sizes, "BATCHES", (2, 3, 5))
    yield
    torch.compiler.reset()
    sizes.reset()


@pytest.fixture
def model():
    found = SizedModel(0)
    found.images, found.width, found.module = False, 4, torch.nn.Linear(4, 4)
    return found


@pytest.mark.parametrize("symbolic", [None, True])
def test_what_agrees(model, symbolic):
    with searching_here(None):
        problems, decisions = sizes.problems_of(model, "frozen", symbolic)
    assert not problems and decisions


def wrong(module, inputs, **options):
    compiled = AS_GIVEN(module, inputs, **options)
    return lambda *values: [y * 2 for y in compiled(*values)]


def symbols(module):
    found = [node.meta["example_value"] for node in module.graph.find_nodes(op="placeholder")]
    return [n for x in found for n in (x.shape if isinstance(x, torch.Tensor) else [x]) if isinstance(n, torch.SymInt)]


def guarding(module, inputs, **options):
    assert all(n != 99 for n in symbols(module))
    return AS_GIVEN(module, inputs, **options)


def pinning(module, inputs, **options):
    assert all(map(int, symbols(module)))
    return AS_GIVEN(module, inputs, **options)


@pytest.mark.parametrize(
    ("backend", "problem"), [(wrong, "off by"), (guarding, "guards [["), (pinning, "compilations in place of")]
)
def test_what_differs(model, monkeypatch, backend, problem):
    monkeypatch.setattr(sizes, "ours", backend)
    with searching_here(None):
        problems, _ = sizes.problems_of(model, "live", True)
    assert any(problem in said for said in problems), problems


@pytest.mark.parametrize(
    ("actual", "expected", "problem"),
    [
        ([torch.ones(2)], [torch.ones(2)], ""),
        ([torch.ones(2), 3], [torch.ones(2), 4], "3 in place of 4"),
        ([torch.ones(2)], [torch.ones(3)], "[2] in place of"),
        ([torch.ones(2) * 1.1], [torch.ones(2)], "off by 0.1"),
        ([torch.ones(2) / 0], [torch.ones(2) / 0], ""),
        (ValueError("no"), ValueError("none"), ""),
        (ValueError("no"), [torch.ones(2)], "ValueError: no in place of a result"),
    ],
)
def test_differences(actual, expected, problem):
    found = sizes.difference(actual, expected)
    assert problem in found and bool(found) == bool(problem)
