"""Probes: what they subtract, and that each function is compiled and timed."""

import pytest
import torch

from torch_eqsat.cost import calibration
from torch_eqsat.cost.kernel import Measurement
from torch_eqsat.cost.measure.probes import FUNCTIONS, CompiledProbe, time_copy
from torch_eqsat.cost.measure.timer import Call


class ByResult:
    """A timer of calls that take 1 ms and 1 µs an element of what they return."""

    device = "cpu"

    def time(self, calls: list[Call]) -> Measurement:
        [outputs] = [call() for call in calls]
        return Measurement(1.0 + sum(x.numel() for x in outputs) * 1e-3, 0.0, 5)  # type: ignore[attr-defined]


def test_the_call_is_taken_off() -> None:
    probe = CompiledProbe(ByResult(), compile=lambda function: function)
    assert probe("relu", 1001, 4).ms == pytest.approx(1.0)
    assert probe("relu", 1, 4).ms == 1e-6


def test_every_function_of_a_class_can_be_timed() -> None:
    probe = CompiledProbe(ByResult(), compile=lambda function: function)
    names = {name for names in calibration.FUNCTIONS.values() for name in names}
    shaped = {*calibration.REDUCTIONS, calibration.POOL, calibration.GATHER}
    assert names | shaped | {"relu", "cheap"} == FUNCTIONS.keys()
    assert all(probe(name, 101, 1).ms == pytest.approx(0.1) for name in FUNCTIONS.keys() - shaped)
    sizes = {name: round(probe(name, 2**14, 1).ms * 1e3) + 1 for name in shaped}
    whole = dict.fromkeys((calibration.POOL, calibration.GATHER), 2**14)
    assert sizes == {"sum of rows": 32, "sum of columns": 512, "maximum of rows": 32} | whole


@pytest.mark.slow
def test_functions_are_compiled() -> None:
    assert CompiledProbe(ByResult())("tanh", 1001, 2).ms == pytest.approx(1.0)


def test_a_copy_is_timed_with_real_tensors_in_the_middle_of_a_compilation() -> None:
    with torch._subclasses.FakeTensorMode():
        found = time_copy(2**20)
    assert 8 * 2**20 / found.ms < 1e9  # 1 TB/s: fake tensors would be faster
