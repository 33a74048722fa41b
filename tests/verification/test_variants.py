"""Variants of examples."""

import random

import pytest

from torch_eqsat.laws.example import parse_example
from torch_eqsat.verification.variants import perturbed


def variants(example, count=300):
    return [perturbed(example, random.Random(seed)) for seed in range(count)]


@pytest.mark.parametrize("example", ["mul([2], -1.0)", "mul(add([2, 3], -0.5), 0.5)"])
def test_numbers_stay_numbers(example):
    found = variants(example)
    assert not any("--" in text for text in found)
    assert len({text.rpartition(", ")[2] for text in found}) > 2


def test_equal_sizes_mostly_stay_equal():
    shapes = [parse_example(text).args for text in variants("matmul([5, 3], [3, 7])")]
    fitting = sum(a.elts[-1].value == b.elts[0].value for a, b in shapes)
    assert 0.6 < fitting / len(shapes) < 1.0
    assert len({a.elts[-1].value for a, b in shapes}) > 3
