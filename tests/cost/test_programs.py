"""The choice of kernels in a program."""

from dataclasses import replace

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
    assert residency_of(Task(products(8, 16), {})) == Residency(packed=8 * 16 * 16 * 4, shared=16 * 16 * 4)


def test_nothing_without_alternatives():
    graph = products(2, 8)
    assert with_kernels(graph, Pricing(True)).nodes == graph.nodes
