"""The cost of programs: prices of their nodes, forms of their heavy nodes, kernels without times, bytes of weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain

from torch_eqsat.cost.inductor.residency import Residency
from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.model import CostModel, Missing
from torch_eqsat.cost.terms import TermPrices
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.program import KERNEL, Program, Task, restarted
from torch_eqsat.ir.term import Node, TermGraph
from torch_eqsat.ir.types import TensorType

# A further e-node is never free, and of two programs of equal cost the captured one is kept.
NODE_MS = 1e-7
REWRITTEN_MS = 1e-7


def with_kernels(program: TermGraph, pricing: CostModel) -> TermGraph:
    """``program`` with its heavy nodes marked by the form that they are best written in, same indices."""
    chosen = TermGraph()
    for index, node in enumerate(program.nodes):
        if form := pricing.form(node, *_operands(program, node)):
            node = Node(node.op, (*node.attrs, (KERNEL, form)), node.children)
        number = chosen.add(node, program.types[index], program.constant[index])
        assert number == index
    chosen.roots = list(program.roots)
    return chosen


def unmeasured(program: Program, pricing: CostModel) -> tuple[Kernel, ...]:
    """Kernels of a program whose prices are estimates."""
    graph = program.graph
    wanted = {}
    for index, node in enumerate(graph.nodes):
        if not (pricing.frozen and graph.constant[index]) and (
            kernel := pricing.unmeasured(node, *_operands(graph, node))
        ):
            wanted[kernel.key] = kernel
    return tuple(wanted.values())


def _operands(graph: TermGraph, node: Node) -> tuple[list[TensorType], list[bool]]:
    """The types of the operands that are tensors, and which operands depend on weights alone."""
    types = [t for c in node.children if (t := graph.types[c]) is not None]
    return types, [graph.constant[c] for c in node.children]


def residency_of(task: Task, program: Program | None = None, *, frozen: bool) -> Residency:
    """The weights that a call of ``task`` goes through, or a call of a program for it."""
    if program is None:
        return _residency(task.graph, range(len(task.graph)), frozen)
    whole = restarted(task, replace(program, meaning=program.captured))
    terms = chain.from_iterable(whole.parts.get(index, (index,)) for index in range(len(program.graph)))
    return _residency(whole.graph, terms, frozen)


def _residency(graph: TermGraph, terms: Iterable[int], frozen: bool) -> Residency:
    packed, shared = 0, dict[int, int]()
    for term in terms:
        node = graph.nodes[term]
        traits = OPERATORS[node.op].traits
        if node.op == "fx" or "view" in traits or (frozen and graph.constant[term]):
            continue
        if "heavy" not in traits:
            if not frozen:
                shared.update(_through_weights(graph, term))
            continue
        weight = node.children[1]
        type_ = graph.types[weight]
        if graph.constant[weight] and not graph.constant[node.children[0]] and type_ is not None:
            packed += type_.bytes
            shared[_source(graph, weight)] = type_.bytes
    return Residency(packed, sum(shared.values()))


def _through_weights(graph: TermGraph, term: int) -> dict[int, int]:
    """The bytes that are read of live weights, and of what is made of them, where that is as large: the scale of a norm
    times the matrix of a vocabulary reads that matrix and leaves another one to be read."""
    node, result = graph.nodes[term], graph.types[term]
    types, constants = _operands(graph, node)
    if result is None or len(types) != len(node.children) or not types:
        return {}
    most = OPERATORS[node.op].traffic(dict(node.attrs), types, result).read
    read = {
        _source(graph, c): min(most, t.bytes) for c, t, own in zip(node.children, types, constants, strict=True) if own
    }
    return {**read, term: result.bytes} if 2 * sum(read.values()) >= result.bytes else read


def _source(graph: TermGraph, term: int) -> int:
    """What ``term`` is a view of."""
    while "view" in OPERATORS[graph.nodes[term].op].traits and graph.nodes[term].children:
        term = graph.nodes[term].children[0]
    return term


def captured_prices(task: Task, pricing: CostModel, missing: Missing | None = None) -> TermPrices:
    """Prices of the terms of a task as the captured program uses them."""
    uses = Counter(c for t, node in enumerate(task.graph.nodes) if task.in_program(t) for c in node.children)
    uses.update(task.graph.roots)
    return TermPrices(task.graph, pricing.as_captured(), uses, missing)


@dataclass(frozen=True, slots=True)
class Price:
    """What a term costs in ms, and whether a kernel of its own computes it, whose time was measured, if it was."""

    ms: float
    heavy: bool


def prices_of(task: Task, program: Program, pricing: CostModel, missing: Missing | None = None) -> list[list[Price]]:
    """For each node of a program found for ``task`` what it costs at today's prices, without an e-graph: of a captured
    operator, what each of its parts does."""
    whole = restarted(task, replace(program, meaning=program.captured))
    uses = Counter(c for node in program.graph.nodes for c in node.children)
    uses.update(program.graph.roots)
    own = TermPrices(whole.graph, pricing, uses, missing)
    captured = TermPrices(whole.graph, pricing.as_captured(), uses, missing)
    nodes = whole.graph.nodes

    def priced(prices: TermPrices, term: int) -> Price:
        return Price(prices(term), "heavy" in OPERATORS[nodes[term].op].traits)

    found: list[list[Price]] = []
    for index in range(len(program.graph)):
        parts = whole.parts.get(index)
        # No parts (None): rewritten, or opaque. Empty ones: of some calls the work is priced elsewhere.
        found.append([priced(own, index)] if parts is None else [priced(captured, part) for part in parts])
    return found


def cost_of(task: Task, program: Program, pricing: CostModel, missing: Missing | None = None) -> float:
    """The cost in ms of a program found for ``task`` at today's prices, without an e-graph."""
    prices = prices_of(task, program, pricing, missing)
    rewritten = sum(program.captured.get(index, -1) not in task.parts for index in range(len(prices)))
    return sum(p.ms for node in prices for p in node) + NODE_MS * len(prices) + REWRITTEN_MS * rewritten


def changed_ms(task: Task, program: Program, pricing: CostModel) -> tuple[float, float]:
    """How much work a program changes, in kernels of their own and in the rest: what is in one of it and the captured
    program, and not in the other (ms)."""
    own, captured = (
        Counter(replace(price, ms=round(price.ms, 9)) for node in prices_of(task, p, pricing) for price in node)
        for p in (program, captured_program(task, pricing))
    )
    changed = ((own - captured) + (captured - own)).items()
    heavy, rest = (sum(p.ms * count for p, count in changed if p.heavy is kind) for kind in (True, False))
    return heavy, rest


def repeated_ms(task: Task, repeated: Mapping[int, int], pricing: CostModel) -> float:
    """What the further calls of terms cost that the captured graph computes more than once: without freezing Inductor
    does not merge products that are equal (1.69x of a loop over one context). Fused work is computed once anyway."""
    prices = captured_prices(task, pricing)
    nodes = task.graph.nodes
    heavy = {t: [p for p in task.parts.get(t, ()) if "heavy" in OPERATORS[nodes[p].op].traits] for t in repeated}
    return sum(repeated[term] * sum(map(prices, parts)) for term, parts in heavy.items())


def captured_program(task: Task, pricing: CostModel, missing: Missing | None = None) -> Program:
    """The program as captured, made without an e-graph: the answer of a search that could not even begin."""
    graph = TermGraph()
    prices = captured_prices(task, pricing, missing)
    origin: list[int] = []
    number: dict[int, int] = {}
    cost = 0.0
    for term in task.graph.reachable(task.graph.roots):
        node = task.graph.nodes[term]
        new = Node(node.op, node.attrs, tuple(number[child] for child in node.children))
        number[term] = graph.add(new, task.graph.types[term], task.graph.constant[term])
        origin.append(task.origin_of(term))
        parts = task.parts.get(term, (term,))
        cost += NODE_MS + sum(map(prices, parts))
    graph.roots = [number[root] for root in task.graph.roots]
    meaning = {number[term]: term for term in number if task.graph.nodes[term].op == "fx"}
    return Program(graph, origin, cost, [""] * len(graph), meaning, dict(meaning))
