"""The last choice in a program: by which kernel each heavy node is computed."""

from __future__ import annotations

from collections import Counter

from torch_eqsat.cost.forms import COLUMN, KERNEL, forms_of
from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.term import Node, TermGraph


def with_kernels(program: TermGraph, pricing: Pricing) -> TermGraph:
    """``program`` with its heavy nodes marked by the cheapest measured form (see `cost/forms.py`), same indices.

    Prices of e-nodes are those of the cheapest form already; here it is chosen, with an eye on weights that are used
    again and again: packed, each use reads a copy of its own from memory.
    """
    if not pricing.alternatives:
        return program
    uses = Counter(node.children[1] for node in program.nodes if node.op == "matmul")
    chosen = TermGraph()
    for index, node in enumerate(program.nodes):
        kernel = _kernel(program, node, pricing)
        if kernel is not None and (form := _form(kernel, uses[node.children[1]], pricing)):
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


def _form(kernel: Kernel, uses: int, pricing: Pricing) -> str:
    """The cheapest form of ``kernel``, whose weight is used so often; "" for Inductor's own choice."""
    known = {
        form: pricing.measured[other.key] for form, other in forms_of(kernel).items() if other.key in pricing.measured
    }
    own = pricing.measured.get(kernel.key)
    if own is None or not known:
        return ""
    copies = uses * kernel.bytes
    if uses > 1 and copies > pricing.coefficients.cache_bytes:
        reading = kernel.bytes / pricing.coefficients.bytes_per_ms
        own += reading
        known = {form: ms + (reading if form != COLUMN else 0.0) for form, ms in known.items()}
    best = min(known, key=lambda form: known[form])
    return best if known[best] < own else ""
