"""Other forms of a product, and what an e-node costs with them."""

import pytest

from torch_eqsat.cost.inductor.forms import forms_of
from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.ir.program import COLUMN, CONVOLUTION
from torch_eqsat.ir.term import Node
from torch_eqsat.ir.types import TensorType

ROWS, ROW = Kernel.matmul((16, 8), (8, 4), weight=True), Kernel.matmul((1, 8), (8, 4), weight=True)


def price(pricing, rows, constants=(False, True), missing=None):
    types = [TensorType((rows, 8), "float32"), TensorType((8, 4), "float32")]
    result = TensorType((rows, 4), "float32")
    return pricing.price(Node("matmul", (), (0, 1)), types, result, constants, False, missing=missing)


def test_forms():
    assert list(forms_of(ROWS)) == [CONVOLUTION]
    assert list(forms_of(ROW)) == [CONVOLUTION, COLUMN]
    assert forms_of(ROWS)[CONVOLUTION].flops == ROWS.flops
    assert forms_of(Kernel.matmul((16, 8), (8, 4))) == {}
    assert forms_of(Kernel.conv((1, 8, 4, 4), (4, 8, 1, 1), weight=True)) == {}


def test_the_cheapest_measured_form_is_the_price():
    convolution = forms_of(ROWS)[CONVOLUTION].key
    measured = {ROWS.key: 2.0, convolution: 0.5}
    pricing = Pricing(True, measured=measured, alternatives=True)
    assert price(pricing, 16) == 0.5
    assert price(pricing.as_captured(), 16) == 2.0
    assert price(Pricing(True, measured=measured), 16) == 2.0
    assert price(Pricing(True, measured={ROWS.key: 2.0, convolution: 3.0}, alternatives=True), 16) == 2.0


def test_products_of_symbolic_rows_have_no_other_forms():
    measured = {k.key: ms for kernel in (ROWS, ROW) for k, ms in ((kernel, 2.0), (forms_of(kernel)[CONVOLUTION], 0.5))}
    pricing = Pricing(True, measured=measured, alternatives=True, symbolic=frozenset({16}))
    assert price(pricing, 16) == 2.0
    assert price(pricing, 1) == 0.5


def test_forms_that_are_not_measured_are_missing_and_do_not_count():
    pricing = Pricing(True, measured={ROW.key: 2.0}, alternatives=True)
    missing = {}
    assert price(pricing, 1, missing=missing) == 2.0
    assert set(missing) == {kernel.key for kernel in forms_of(ROW).values()}


@pytest.mark.parametrize("constants", [(False, False), (True, False)])
def test_only_frozen_weights_have_other_forms(constants):
    pricing = Pricing(True, alternatives=True)
    missing = {}
    price(pricing, 16, constants, missing)
    assert [kernel.kind for kernel in missing.values()] == ["matmul"]
