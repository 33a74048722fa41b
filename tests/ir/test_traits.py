"""Traits: the axes that operators act on, and linearity, checked on tensors."""

import pytest
import torch

from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.ir.traits import acted_axes, is_linear, linear_positions, mapped_positions
from torch_eqsat.ir.types import TensorType
from torch_eqsat.laws.example import build_example
from torch_eqsat.rewrites.samples import BASES
from torch_eqsat.verification.interpreter import Drawing, draw_inputs, evaluate

SAMPLES = [sample for record in OPERATORS.values() for sample in record.samples]
each_sample = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.text)


def term(text):
    graph = TermGraph()
    root = build_example(text, Builder(GraphStore(graph)))
    graph.roots = [root.id]
    return graph, root


def sampled(sample):
    return term(f"({', '.join(sample.over(BASES[sample.rank], 'v'))})")


@each_sample
def test_samples_act_on_the_axes_that_they_say(sample):
    _, root = sampled(sample)
    types = [operand.type for operand in root.operands]
    assert acted_axes(root.op, dict(root.attrs), types, sample.position) == sample.axes
    assert root.numel / types[sample.position].numel == pytest.approx(sample.ratio) or sample.axes is None


@each_sample
def test_other_axes_are_independent(sample):
    """Reversing the input along an axis that is not acted on reverses the result along it."""
    graph, root = sampled(sample)
    operand = root.operands[sample.position].id
    inputs = draw_inputs(graph, Drawing())
    for axis in set(range(sample.rank)) - (sample.axes or set(range(sample.rank))):
        flipped = {**inputs, operand: inputs[operand].flip(axis)}
        assert torch.equal(evaluate(graph, flipped)[root.id], evaluate(graph, inputs)[root.id].flip(axis))


@each_sample
def test_linearity(sample):
    graph, root = sampled(sample)
    position = sample.position
    if not is_linear(root.op, dict(root.attrs), position):
        pytest.skip("not linear here")
    operand = root.operands[position].id
    inputs, other = draw_inputs(graph, Drawing(seed=1)), draw_inputs(graph, Drawing(seed=2))[operand]

    def image(x):
        return evaluate(graph, {**inputs, operand: x})[root.id]

    assert torch.allclose(image(3 * inputs[operand] + other), 3 * image(inputs[operand]) + image(other))


def test_every_place_has_a_sample():
    places = {(sample.text.partition("(")[0], sample.position) for sample in SAMPLES}
    assert set(mapped_positions()) | set(linear_positions()) <= places


def test_only_sums_and_means_are_linear():
    assert is_linear("reduce", {"kind": "mean"}, 0) and not is_linear("reduce", {"kind": "amax"}, 0)
    assert not is_linear("embedding", {}, 1) and not is_linear("max_pool", {}, 0)


def test_axes_of_an_index_that_adds_some():
    types = [TensorType((4, 6), "float32"), TensorType((2, 3), "int64")]
    assert acted_axes("index", {"first": 1}, types, 0) is None
