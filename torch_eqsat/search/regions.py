"""Cuts a large graph at narrow places; equal regions are searched once.

A narrow place is a point in the order of the graph where one value alone is still to be used. Cuts are made behind
operators that no law of the catalogue crosses but those of slices (nonlinear elementwise ones), so that a rewrite is
seldom lost. Graphs of up to ``WHOLE`` operators are not cut: slices move through all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.term import FACTS, Node, TermGraph, attributes
from torch_eqsat.search.program import Program, Task

WHOLE = 900
SMALLEST = 16


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a task as a task of its own. ``leaves[i]`` is the term of the whole graph behind input i of the
    region, ``terms`` the terms of the whole graph by the region's own."""

    task: Task
    leaves: dict[int, int]
    terms: dict[int, int]


def split_into_regions(task: Task, whole: int = WHOLE, smallest: int = SMALLEST) -> list[Region]:
    """The regions of ``task``, in order; one region when it has at most ``whole`` operators."""
    operators = [t for t, node in enumerate(task.graph.nodes) if node.op == "fx"]
    if len(operators) <= whole:
        return [_region(task, operators, list(task.graph.roots))]
    last_use = _last_uses(task, operators)
    regions: list[Region] = []
    current: list[int] = []
    for position, term in enumerate(operators):
        current.append(term)
        live = (
            [t for t in operators[: position + 1] if last_use.get(t, -1) > position] if _is_barrier(task, term) else []
        )
        if live == [term] and len(current) >= smallest and position + 1 < len(operators):
            regions.append(_region(task, current, [term]))
            current = []
    return [*regions, _region(task, current, list(task.graph.roots))]


def _last_uses(task: Task, operators: Sequence[int]) -> dict[int, int]:
    """The last position at which each operator's value is read; roots are read at the end."""
    last: dict[int, int] = {}
    for position, term in enumerate(operators):
        for child in task.graph.nodes[term].children:
            last[child] = position
    return last | {root: len(operators) for root in task.graph.roots}


def _is_barrier(task: Task, term: int) -> bool:
    parts = task.parts.get(term, ())
    return any(_is_nonlinear(task.graph.nodes[part].op) for part in parts) and task.graph.types[term] is not None


def _is_nonlinear(op: str) -> bool:
    return "pointwise" in OPERATORS[op].traits and op not in ("add", "mul")


def _region(task: Task, operators: Sequence[int], roots: list[int]) -> Region:
    """The task that computes ``roots`` with ``operators``; values from outside become its inputs."""
    graph, inside = task.graph, set(operators)
    region = TermGraph()
    number: dict[int, int] = {}
    leaves: dict[int, int] = {}
    meaning = dict(graph.equal)

    def place(term: int) -> int:
        """The region's term for a term of the whole graph, whose operands have been placed."""
        if term in number:
            return number[term]
        node = graph.nodes[term]
        if node.op == "input" or (node.op == "fx" and term not in inside):
            type_ = graph.types[term]
            known = {name: value for name, value in node.attrs if name in FACTS}
            name = f"{'c' if graph.constant[term] else 'x'}{len(leaves)}"
            shape, dtype = (type_.shape, type_.dtype) if type_ else ((), "?")
            node = Node("input", attributes(name=name, shape=shape, dtype=dtype, **known), ())
            number[term] = region.add(node, graph.types[term], graph.constant[term])
            leaves[number[term]] = term
        else:
            children = tuple(place(child) for child in node.children)
            if "commutative" in OPERATORS[node.op].traits:  # sorted by the whole graph's numbers so far
                children = tuple(sorted(children))
            number[term] = region.add(Node(node.op, node.attrs, children), graph.types[term], graph.constant[term])
        return number[term]

    parts = {}
    for term in operators:
        place(term)
        if term in meaning:
            region.equal.append((place(term), place(meaning[term])))
        if term in task.parts:
            parts[number[term]] = tuple(place(part) for part in task.parts[term])
    region.roots = [place(root) for root in roots]
    return Region(Task(region, parts), leaves, {new: old for old, new in number.items()})


def join_programs(task: Task, regions: Sequence[Region], programs: Sequence[Program]) -> tuple[TermGraph, list[int]]:
    """One program for the whole task from those of its regions, and the origin of each of its nodes.

    Equal regions share a program; each place of use has its own inputs.
    """
    joined = TermGraph()
    origin: list[int] = []
    value_of: dict[int, int] = {}
    for region, program in zip(regions, programs, strict=True):
        leaf_of = {region.task.graph.nodes[leaf]: term for leaf, term in region.leaves.items()}
        number: list[int] = []
        for index, node in enumerate(program.graph.nodes):
            source = leaf_of.get(node) if node.op == "input" else None
            if source is not None and source in value_of:
                number.append(value_of[source])
                continue
            if source is not None:
                node = task.graph.nodes[source]
            new = Node(node.op, node.attrs, tuple(number[child] for child in node.children))
            number.append(joined.add(new, program.graph.types[index], program.graph.constant[index]))
            if number[-1] == len(origin):
                origin.append(region.terms.get(program.origin[index], -1))
        for root, chosen in zip(region.task.graph.roots, program.graph.roots, strict=True):
            value_of[region.terms[root]] = number[chosen]
    joined.roots = [value_of[root] for root in task.graph.roots]
    return joined, origin
