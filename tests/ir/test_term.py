"""Terms: sharing, digests, text."""

import os
import subprocess
import sys

from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.term import Node, TermGraph, attributes
from torch_eqsat.ir.types import TensorType

PROGRAM = """
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.ir.builder import Builder, GraphStore
graph = TermGraph()
t = Builder(GraphStore(graph))
x = t.input((2, 6))
y = t.reduce(t.mul(t.view(x, (3, 4)), t.scalar(0.5)), "sum", [0, 1])
graph.roots = [y.id]
graph.equal = [(x.id, x.id)]
print(graph.digest())
"""


def example() -> TermGraph:
    graph = TermGraph()
    t = Builder(GraphStore(graph))
    x = t.input((2, 3))
    product = t.matmul(x, t.input((3, 4)))
    graph.roots = [t.permute(t.add(product, t.scalar(1.0)), [1, 0]).id]
    return graph


def test_equal_terms_are_one_node():
    graph = TermGraph()
    t = Builder(GraphStore(graph))
    x = t.input((4,))
    assert t.add(x, x).id == t.add(x, x).id
    assert t.mul(x, t.scalar(2.0)).id == t.mul(t.scalar(2.0), x).id  # operands of commutative operators are sorted
    assert t.mul(x, t.scalar(2.0)).id != t.mul(x, t.scalar(3.0)).id
    assert len(graph) == 6


def test_attributes_are_sorted_and_hashable():
    attrs = attributes(stride=[2, 2], groups=1, pads=[[0, 1], [2, 3]])
    assert attrs == (("groups", 1), ("pads", ((0, 1), (2, 3))), ("stride", (2, 2)))
    assert Node("conv", attrs, ())["stride"] == (2, 2)
    hash(attrs)


def test_reachable_is_ascending_and_no_more_than_needed():
    graph = example()
    unused = graph.add(Node("input", attributes(name="u", shape=(1,), dtype="bool"), ()), None, False)
    assert graph.reachable(graph.roots) == [0, 1, 2, 3, 4, 5]
    assert graph.reachable([2]) == [0, 1, 2]
    assert graph.reachable([unused]) == [unused]


def test_digest_sees_every_part():
    digests = [example().digest()]

    def changed() -> TermGraph:
        graph = example()
        digests.append("")
        return graph

    graph = changed()
    graph.roots = [0]
    digests[-1] = graph.digest()
    graph = changed()
    graph.equal.append((0, 1))
    digests[-1] = graph.digest()
    graph = changed()
    graph.constant[1] = True
    digests[-1] = graph.digest()
    graph = changed()
    graph.types[2] = TensorType((2, 4), "float64")
    digests[-1] = graph.digest()
    assert len(set(digests)) == 5
    assert example().digest() == digests[0]


def test_digest_is_equal_across_processes():
    def digest(seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        return subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert digest("1") == digest("2") != ""


def test_format():
    graph = example()
    assert graph.format() == (
        "%0 = input() dtype=float32 name=x1 shape=(2, 3) : float32[2, 3]\n"
        "%1 = input() dtype=float32 name=x2 shape=(3, 4) : float32[3, 4]\n"
        "%2 = matmul(%0, %1) : float32[2, 4]\n"
        "%3 = scalar() dtype=float32 shape=() value=1.0 : float32[]\n"
        "%4 = add(%2, %3) : float32[2, 4]\n"
        "%5 = permute(%4) dims=(1, 0) : float32[4, 2]"
    )
    assert graph.format([1]) == "%1 = input() dtype=float32 name=x2 shape=(3, 4) : float32[3, 4]"
    opaque = graph.add(Node("fx", attributes(uid="f"), (0,)), None, False)
    assert graph.format([opaque]).endswith(f"%{opaque} = fx(%0) uid=f : ?")
