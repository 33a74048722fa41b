"""Prices for machines that are not here."""

import pytest

from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.roofline import cpu_roofline, gpu_roofline
from torch_eqsat.cost.targets import TARGETS, measured_over_estimated, target_pricing
from torch_eqsat.errors import OptionError
from torch_eqsat.ir.term import Node
from torch_eqsat.ir.types import TensorType


def price(target, size=2048):
    square = TensorType((size, size), "float32")
    return target_pricing(target, False).price(Node("matmul", (), (0, 1)), [square] * 2, square, [False] * 2, False)


@pytest.mark.parametrize("name", ["H100", "A100", "L4"])
def test_a_product_costs_what_the_data_of_the_card_say(name):
    kernel = Kernel.matmul((2048, 2048), (2048, 2048), device="cuda")
    assert price(name) == gpu_roofline(name).lower_estimate_ms(kernel)


def test_slower_devices_cost_more():
    assert price("H100") < price("L4") < price("cpu")


def test_unknown_targets_are_refused_with_those_known():
    with pytest.raises(OptionError, match=rf"'B9000' is unknown; it is one of {', '.join(TARGETS)}"):
        target_pricing("B9000", False)


def test_ratios_of_measured_and_estimated():
    roofline, kernels = cpu_roofline(), [Kernel.matmul((n, 64), (64, 64)) for n in (8, 16, 32)]
    pairs = [(k, f * roofline.lower_estimate_ms(k)) for k, f in zip(kernels, (0.5, 2.0, 4.0), strict=True)]
    found = measured_over_estimated(pairs, roofline)
    assert (found.count, found.median, found.least, found.most) == pytest.approx((3, 2.0, 0.5, 4.0))
    assert found.optimistic == pytest.approx(2 / 3)
    assert measured_over_estimated([], roofline) is None
