"""What is known of values for every input."""

import pytest

from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.intervals import analyse
from torch_eqsat.ir.known import NOTHING, Known
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.laws.example import build_example


def known(text):
    builder = Builder(GraphStore(TermGraph()))
    return builder.store.known_of(build_example(text, builder).id)


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("[4]", None),
        ("relu([4])", None),  # NaN stays NaN
        ("clamp([4], low=0.0, high=1.0)", None),
        ("clamp(integers(4), low=0, high=7)", (0, 7)),
        ("clamp(integers(4), low=0)", None),
        ("integers(6, repeats=2)", (0, 2)),
        ("integers(6, least=-1, most=5)", (-1, 5)),
        ("convert(booleans(4), dtype='float32')", (0, 1)),
        ("convert(equal(integers(5, 1), integers(4, repeats=1)), dtype='float32')", (0, 1)),
        ("add(mul(convert(booleans(4), dtype='float32'), -2.0), 1.0)", (-1, 1)),
        ("[4, 4, modest=1]", None),
        ("mul(convert(booleans(4), dtype='float32'), [4])", None),
        ("reduce(convert(booleans(2, 3), dtype='float32'), kind='sum', dims=[1])", (0, 3)),
        ("matmul(convert(booleans(2, 3), dtype='float32'), convert(booleans(3, 2), dtype='float32'))", (0, 3)),
        ("maximum(convert(booleans(4), dtype='float32'), 0.5)", (0.5, 1)),
        ("pad(add(convert(booleans(4), dtype='float32'), 1.0), pads=[[1, 1]])", (0, 2)),
        ("tanh(convert(booleans(4), dtype='float32'))", (-1, 1)),
        ("tanh([4])", None),
        ("hypot(convert(booleans(4), dtype='float32'), 0.0)", (0, 1.01)),
        ("hypot([4], 0.0)", None),
        ("add(1e29, 1e29)", (2e29, 2e29)),
        ("mul(1e29, 1e29)", None),
    ],
)
def test_intervals(text, interval):
    if "modest" in text:
        text = "weights(4, 4)"  # without a value nothing is known
    assert known(text).interval == interval


@pytest.mark.parametrize(
    ("text", "rounded"),
    [
        ("[2, 3]", False),
        ("add([2, 3], [3])", False),  # may be exact
        ("matmul([2, 3], [3, 4])", True),
        ("add(matmul([2, 3], [3, 4]), [4])", True),
        ("relu(view(matmul([2, 3], [3, 4]), shape=[8]))", True),
        ("cat(matmul([2, 3], [3, 4]), [2, 4], dim=0)", False),
        ("cat(matmul([2, 3], [3, 4]), matmul([2, 3], [3, 4]), dim=0)", True),
        ("where(booleans(2, 4), matmul([2, 3], [3, 4]), 0.0)", True),
        ("where(booleans(2, 4), matmul([2, 3], [3, 4]), [2, 4])", False),
        ("maximum(matmul([2, 3], [3, 4]), 0.0)", True),
        ("hypot(matmul([2, 3], [3, 4]), [4])", False),
        ("reduce([2, 3], kind='sum', dims=[1])", True),
        ("reduce([2, 1], kind='sum', dims=[1])", False),
        ("reduce([2, 3], kind='amax', dims=[1])", False),
        ("embedding([5, 3], integers(4))", False),
        ("sigmoid(matmul([2, 3], [3, 4]))", False),
    ],
)
def test_rounding(text, rounded):
    assert known(text).rounded is rounded


@pytest.mark.parametrize(
    ("text", "tame"),
    [
        ("[4]", False),  # may be a mask
        ("matmul([2, 3], [3, 4])", True),
        ("add(matmul([2, 3], [3, 4]), [4])", False),
        ("add(matmul([2, 3], [3, 4]), 1.0)", True),
        ("add(matmul([2, 3], [3, 4]), -3.4e38)", False),
        ("exp(add([4], [4]))", True),
        ("reduce(add(matmul([2, 3], [3, 4]), [4]), kind='amax', dims=[1])", False),
        ("where(booleans(2, 4), matmul([2, 3], [3, 4]), [2, 4])", False),
        ("mul(sigmoid([4]), 2.0)", True),
    ],
)
def test_masks(text, tame):
    assert known(text).tame is tame


def test_an_eclass_knows_what_any_of_its_enodes_does():
    one, other = Known((-4.0, 2.0), rounded=True, late=True), Known((0.0, 9.0), tame=True)
    assert one.met(other) == other.met(one) == Known((0.0, 2.0), True, True, False)
    assert NOTHING.met(one) == Known((-4.0, 2.0), rounded=True)


def test_gradients_come_late():
    late = Known(late=True)
    assert analyse("add", {}, [late, NOTHING], [None, None, None]).late
    assert not analyse("add", {}, [NOTHING, NOTHING], [None, None, None]).late
