"""The choice of kernels in a program."""

from dataclasses import replace

import pytest

from torch_eqsat.cost.inductor.forms import forms_of
from torch_eqsat.cost.inductor.residency import RESIDENT, Residency
from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.cost.programs import residency_of, with_kernels
from torch_eqsat.ir.program import COLUMN, CONVOLUTION, KERNEL, Task
from torch_eqsat.ir.term import Node, TermGraph
from torch_eqsat.ir.types import TensorType


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


def chosen(uses, width, residency=RESIDENT, **ms):
    own = Kernel.matmul((1, width), (width, width), weight=True)
    kernels = {"own": own, **forms_of(own)}
    measured = {kernel.key: ms[name] for name, kernel in kernels.items()}
    measured |= {
        replace(kernel, cold=True).key: ms[f"cold_{name}"] for name, kernel in kernels.items() if ms.get(f"cold_{name}")
    }
    graph = products(uses, width)
    program = with_kernels(graph, Pricing(True, measured=measured, alternatives=True, residency=residency))
    assert program.types == graph.types and program.roots == graph.roots
    return {dict(node.attrs).get(KERNEL) for node in program.nodes if node.op == "matmul"}


def test_the_cheapest():
    assert chosen(1, 64, own=1.0, convolution=0.9, column=1.1) == {CONVOLUTION}
    assert chosen(1, 64, own=0.8, convolution=0.9, column=1.1) == {None}


def test_a_large_weight_that_is_used_again_stays_unpacked():
    """Packed, each use reads a copy of its own, from memory where all of them exceed the cache."""
    warm = {"own": 0.20, "convolution": 0.19, "column": 0.21}
    cold = {"cold_own": 0.40, "cold_convolution": 0.30, "cold_column": 0.50}
    copies, all_cold = Residency(packed=2**30, shared=2**20), Residency(packed=2**30, shared=2**30)
    assert chosen(8, 64, **warm, **cold) == {CONVOLUTION}
    assert chosen(8, 64, copies, **warm, **cold) == {COLUMN}
    assert chosen(8, 64, all_cold, **warm, **cold) == {CONVOLUTION}


def test_weights_are_counted_by_use_and_once():
    counted = Residency(packed=8 * 16 * 16 * 4, shared=16 * 16 * 4)
    assert residency_of(Task(products(8, 16), {}), frozen=True) == counted
    assert residency_of(Task(products(8, 16), {}), frozen=False) == counted


@pytest.mark.parametrize("frozen", [True, False])
def test_live_weights_and_what_is_made_of_them_are_counted(frozen: bool) -> None:
    """Of a decoder whose largest weight is scaled for each token, that weight was not counted at all."""
    graph = TermGraph()
    matrix, row, number = (TensorType(shape, "float32") for shape in ((16, 64), (1, 16), (1, 1)))
    weight, table = (graph.add(Node("input", (("uid", uid),), ()), matrix, True) for uid in "wt")
    x, scale = (graph.add(Node("input", (("uid", uid),), ()), t, False) for uid, t in (("x", row), ("s", number)))
    scaled = graph.add(Node("mul", (), (weight, scale)), matrix, False)
    both = graph.add(Node("add", (), (weight, table)), matrix, True)
    graph.roots = [graph.add(Node("matmul", (), (x, w)), TensorType((1, 64), "float32"), False) for w in (scaled, both)]
    one = matrix.bytes
    assert residency_of(Task(graph, {}), frozen=frozen) == Residency(packed=one, shared=one if frozen else 4 * one)


def test_nothing_without_alternatives():
    graph = products(2, 8)
    assert with_kernels(graph, Pricing(True)).nodes == graph.nodes
