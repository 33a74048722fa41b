"""The choice of kernels in a program."""

from torch_eqsat.cost.forms import COLUMN, CONVOLUTION, KERNEL, forms_of
from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.ir.term import Node, TermGraph
from torch_eqsat.ir.types import TensorType
from torch_eqsat.search.kernels import with_kernels


def products(uses, width):
    """Products of one row, one after another, with one weight [width, width]."""
    graph = TermGraph()
    square, row = TensorType((width, width), "float32"), TensorType((1, width), "float32")
    weight = graph.add(Node("input", (("uid", "w"),), ()), square, True)
    x = graph.add(Node("input", (("uid", "x"),), ()), row, False)
    for _ in range(uses):
        x = graph.add(Node("matmul", (), (x, weight)), row, False)
    graph.roots = [x]
    return graph


def chosen(uses, width, **ms):
    own = Kernel.matmul((1, width), (width, width), weight=True)
    forms = forms_of(own)
    measured = {own.key: ms["own"], forms[CONVOLUTION].key: ms["convolution"], forms[COLUMN].key: ms["column"]}
    graph = products(uses, width)
    program = with_kernels(graph, Pricing(True, measured=measured, alternatives=True))
    assert program.types == graph.types and program.roots == graph.roots
    return {dict(node.attrs).get(KERNEL) for node in program.nodes if node.op == "matmul"}


def test_the_cheapest():
    assert chosen(1, 64, own=1.0, convolution=0.9, column=1.1) == {CONVOLUTION}
    assert chosen(1, 64, own=0.8, convolution=0.9, column=1.1) == {None}


def test_a_large_weight_that_is_used_again_stays_unpacked():
    assert chosen(1, 1024, own=0.20, convolution=0.19, column=0.21) == {CONVOLUTION}
    assert chosen(8, 1024, own=0.20, convolution=0.19, column=0.21) == {COLUMN}
    assert chosen(8, 16, own=0.20, convolution=0.19, column=0.21) == {CONVOLUTION}


def test_nothing_without_alternatives():
    graph = products(2, 8)
    assert with_kernels(graph, Pricing(True)) is graph
