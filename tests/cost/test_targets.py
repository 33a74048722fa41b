"""Prices for machines that are not here."""

import pytest

from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.roofline import gpu_roofline
from torch_eqsat.cost.targets import TARGETS, target_pricing
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
