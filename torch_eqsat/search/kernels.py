"""The kernels of a program: by which form each heavy node is computed, and how much all read."""

from __future__ import annotations

from collections.abc import Iterable

from torch_eqsat.cost.forms import KERNEL, OWN
from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.cost.residency import Residency
from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.term import Node, TermGraph
from torch_eqsat.search.program import Program, Task


def with_kernels(program: TermGraph, pricing: Pricing) -> TermGraph:
    """``program`` with its heavy nodes marked by the cheapest measured form (see `cost/forms.py`), same indices.

    Prices of e-nodes are those of the cheapest form already; here it is chosen.
    """
    if not pricing.alternatives:
        return program
    chosen = TermGraph()
    for index, node in enumerate(program.nodes):
        kernel = _kernel(program, node, pricing)
        if kernel is not None and (form := _form(kernel, pricing)):
            node = Node(node.op, (*node.attrs, (KERNEL, form)), node.children)
        number = chosen.add(node, program.types[index], program.constant[index])
        assert number == index
    chosen.roots = list(program.roots)
    return chosen


def _kernel(program: TermGraph, node: Node, pricing: Pricing) -> Kernel | None:
    types = [t for c in node.children if (t := program.types[c]) is not None]
    if "heavy" not in OPERATORS[node.op].traits or len(types) != len(node.children):
        return None
    try:
        return pricing.kernel_of(node, types, [program.constant[c] for c in node.children])
    except TypeMismatchError:
        return None


def _form(kernel: Kernel, pricing: Pricing) -> str:
    """The cheapest form of ``kernel``; OWN for Inductor's own choice."""
    own, known = pricing.measured.get(kernel.key), pricing.forms_ms(kernel)
    if own is None or not known:
        return OWN
    best = min(known, key=lambda form: known[form])
    return best if known[best] < own else OWN


def residency_of(task: Task, program: Program | None = None) -> Residency:
    """The weights of the heavy terms of ``task``, or those of a program for it."""
    if program is None:
        return _residency(task.graph, range(len(task.graph)))
    calls = [part for term in program.captured.values() for part in task.parts.get(term, ())]
    return _residency(program.graph, range(len(program.graph))) + _residency(task.graph, calls)


def _residency(graph: TermGraph, terms: Iterable[int]) -> Residency:
    packed, shared = 0, dict[int, int]()
    for term in terms:
        node = graph.nodes[term]
        if "heavy" not in OPERATORS[node.op].traits or graph.constant[node.children[0]]:
            continue
        weight = node.children[1]
        type_ = graph.types[weight]
        if graph.constant[weight] and type_ is not None:
            packed += type_.bytes
            shared[weight] = type_.bytes
    return Residency(packed, sum(shared.values()))
