"""Cuts a large graph at narrow places; equal regions are searched once.

A narrow place is a point in the order of the graph where one value alone is still to be used by operators. Cuts are
made behind operators that no law of the catalogue crosses but those of slices (nonlinear elementwise ones), so that a
rewrite is seldom lost. If no narrow place lies within the size limit, the cut with the fewest live values is taken, so
that no region is too large to be searched. Graphs that leave an e-graph room to grow are not cut, because slices move
through all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch_eqsat.ir.intervals import analyse_graph
from torch_eqsat.ir.known import Known
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.program import Program, Task
from torch_eqsat.ir.term import FACTS, Node, TermGraph, attributes
from torch_eqsat.search.parameters import SearchParameters


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a task as a task of its own. ``leaves[i]`` is the term of the whole graph behind input i of the
    region, ``terms`` the terms of the whole graph by the region's own."""

    task: Task
    leaves: dict[int, int]
    terms: dict[int, int]


def split_into_regions(
    task: Task, nodes: int = 20_000, parameters: SearchParameters = SearchParameters()
) -> list[Region]:
    """The regions of ``task``, in order: one when it has few operators and e-graphs of ``nodes`` e-nodes have room for
    them, and otherwise several, as ``parameters`` say."""
    smallest = parameters.smallest_region
    operators = [t for t, node in enumerate(task.graph.nodes) if node.op == "fx"]
    largest = max(1, min(parameters.largest_region, nodes // parameters.nodes_per_operator))
    given = [root for root in task.graph.roots if task.graph.nodes[root].op != "fx"]
    if len(operators) <= min(parameters.whole_operators, largest):
        return _informed(task, [whole_region(task)])
    if len(operators) <= parameters.whole_operators:
        # Too large for the e-graph only: few regions, as large as they may be.
        smallest = max(smallest, largest // 2)
    last_use = _last_uses(task, operators)
    regions = []
    start = 0
    for stop in _cuts(task, operators, last_use, smallest, largest):
        inside = operators[start:stop]
        roots = set(task.graph.roots)
        live = [t for t in inside if last_use.get(t, -1) >= stop or t in roots]
        regions.append(_region(task, inside, [*live, *given] if stop == len(operators) else live))
        start = stop
    return _informed(task, regions)


def whole_region(task: Task) -> Region:
    """All of ``task`` as one region."""
    operators = [t for t, node in enumerate(task.graph.nodes) if node.op == "fx"]
    return _region(task, operators, list(task.graph.roots))


def grouped(regions: Sequence[Region]) -> dict[str, list[Region]]:
    """Equal regions together, by the digest of their graphs, in the order in which they first occur."""
    groups: dict[str, list[Region]] = {}
    for region in regions:
        groups.setdefault(region.task.graph.digest(), []).append(region)
    return groups


def _informed(task: Task, regions: list[Region]) -> list[Region]:
    """``regions`` whose inputs say what is known of them in the whole graph. Equal regions, which are searched once,
    say what is known in all places. Those whose inputs are not late alike are not equal: what is merged in one place
    would make the forward depend on gradients in another."""
    known = analyse_graph(task.graph)

    def say(region: Region, place: int, facts: dict[str, int]) -> None:
        node = region.task.graph.nodes[place]
        region.task.graph.relabel(place, Node(node.op, attributes(**{**facts, **dict(node.attrs)}), ()))

    for region in regions:
        for place, term in region.leaves.items():
            say(region, place, Known(late=known[term].late).facts())
    for group in grouped(regions).values():
        for place in group[0].leaves:
            found = [known[region.leaves[place]] for region in group]
            said = Known(None, all(k.rounded for k in found), all(k.tame for k in found)).facts()
            for region in group:
                say(region, place, said)
    return regions


def _cuts(task: Task, operators: Sequence[int], last_use: dict[int, int], smallest: int, largest: int) -> list[int]:
    """The positions at which regions end."""
    width = _widths(operators, last_use)
    cuts = []
    start = 0
    while start < len(operators):
        earliest, latest = start + smallest, min(start + max(largest, smallest), len(operators))
        narrow = (
            stop
            for stop in range(earliest, latest)
            if width[stop] == 1
            and last_use.get(operators[stop - 1], -1) >= stop
            and _is_barrier(task, operators[stop - 1])
        )
        cut = next(narrow, None)
        if cut is None and latest < len(operators):
            # In the later half of the window, so that regions do not become small.
            cut = min(range((start + latest + 1) // 2, latest + 1), key=lambda stop: (width[stop], -stop))
        cuts.append(len(operators) if cut is None else cut)
        start = cuts[-1]
    return cuts


def _widths(operators: Sequence[int], last_use: dict[int, int]) -> list[int]:
    """For each position how many values computed before it are used by operators from it on."""
    change: Counter[int] = Counter()
    for position, term in enumerate(operators):
        if (last := last_use.get(term, -1)) > position:
            change[position + 1] += 1
            change[last + 1] -= 1
    width, widths = 0, []
    for position in range(len(operators) + 1):
        width += change[position]
        widths.append(width)
    return widths


def _last_uses(task: Task, operators: Sequence[int]) -> dict[int, int]:
    """The last position at which an operator reads each value."""
    last: dict[int, int] = {}
    for position, term in enumerate(operators):
        for child in task.graph.nodes[term].children:
            last[child] = position
    return last


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


def join_programs(task: Task, regions: Sequence[Region], programs: Sequence[Program]) -> Program:
    """One program for the whole task from those of its regions.

    Equal regions share a program; each place of use has its own inputs.
    """
    joined = Program(TermGraph(), [], sum(program.cost for program in programs))
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
            number.append(joined.graph.add(new, program.graph.types[index], program.graph.constant[index]))
            if number[-1] == len(joined.origin):
                joined.origin.append(region.terms.get(program.origin[index], -1))
                joined.made.append(program.made[index])
                if index in program.captured:
                    term = region.terms[program.captured[index]]
                    joined.meaning[number[-1]] = joined.captured[number[-1]] = term
        for root, chosen in zip(region.task.graph.roots, program.graph.roots, strict=True):
            value_of[region.terms[root]] = number[chosen]
    joined.graph.roots = [value_of[root] for root in task.graph.roots]
    return joined
