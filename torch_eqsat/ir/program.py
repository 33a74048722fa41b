"""Tasks and programs: a term graph to optimize, and what was chosen for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.term import Node, TermGraph

KERNEL = "kernel"
"""The attribute of a node of a chosen program that names the form to write it in; without it, as Inductor expects
(see `cost/inductor/forms.py`)."""

OWN, CONVOLUTION, COLUMN = "", "convolution", "column"


@dataclass(frozen=True, slots=True)
class Task:
    """A term graph to optimize.

    The program of a captured task is its ``fx`` terms. A task made from a program (see :func:`restarted`) begins with
    the terms of that program; the fields from ``chosen`` on are empty in a captured task."""

    graph: TermGraph
    parts: Mapping[int, tuple[int, ...]]
    """``fx`` term -> the terms of the language that it stands for."""
    chosen: int = 0
    """How many terms the program has, which are the first ones."""
    origin: tuple[int, ...] = ()
    """By term of the program: the captured term with its value, or -1."""
    made: tuple[str, ...] = ()
    """By term of the program: the law that made it, "" for none."""
    captured: Mapping[int, int] = field(default_factory=dict)
    """``fx`` term -> the captured one that it is."""

    def origin_of(self, term: int) -> int:
        """The captured term that has the value of ``term``; -1 if there is none."""
        if self.origin:
            return self.origin[term] if term < len(self.origin) else -1
        return term if term < len(self.graph) else -1

    def in_program(self, term: int) -> bool:
        """Whether ``term`` is part of the program that the task was made from."""
        return term < self.chosen if self.chosen else self.graph.nodes[term].op in ("fx", "input")


@dataclass
class Program:
    """A program chosen for a task."""

    graph: TermGraph
    """Its terms, with the roots of the task in order."""
    origin: list[int]
    """By term: the captured term with its value, or -1."""
    cost: float
    """Predicted time, in ms."""
    made: list[str] = field(default_factory=list)
    """By term: the law that made it, "" for none."""
    meaning: dict[int, int] = field(default_factory=dict)
    """``fx`` term -> the term of the task that it was."""
    captured: dict[int, int] = field(default_factory=dict)
    """``fx`` term -> the term of the captured task that it was."""

    @property
    def laws(self) -> Counter[str]:
        """How many nodes each law made."""
        return Counter(law for law in self.made if law)


def restarted(task: Task, program: Program) -> Task:
    """A small task whose program is ``program``, one found for ``task``: its nodes, and what its ``fx`` nodes mean."""
    graph = TermGraph()
    for node, type_, constant in zip(program.graph.nodes, program.graph.types, program.graph.constant, strict=True):
        graph.add(node, type_, constant)
    graph.roots = list(program.graph.roots)
    chosen = len(graph)
    equal = dict(task.graph.equal)
    parts: dict[int, tuple[int, ...]] = {}
    for index, term in program.meaning.items():
        if term not in task.parts:
            continue
        number = _operands(task.graph, term, graph, index)
        parts[index] = tuple(_place(task.graph, part, graph, number) for part in task.parts[term])
        if term in equal:
            graph.equal.append((index, _place(task.graph, equal[term], graph, number)))
    return Task(graph, parts, chosen, tuple(program.origin), tuple(program.made), dict(program.captured))


def _operands(source: TermGraph, term: int, target: TermGraph, index: int) -> dict[int, int]:
    """The operands of a call in ``target``, by those of what it was in ``source``. The meaning of an item of a tuple is
    stated over the operands of the call that returns the tuple."""
    number = dict(zip(source.nodes[term].children, target.nodes[index].children, strict=True))
    for before, after in list(number.items()):
        if source.types[before] is None and source.nodes[before].op == "fx":
            number |= zip(source.nodes[before].children, target.nodes[after].children, strict=True)
    return number


def _place(source: TermGraph, term: int, target: TermGraph, number: dict[int, int]) -> int:
    """The term of ``target`` for one of ``source``; ``number`` says so for some, and for all that are placed."""
    if term not in number:
        node = source.nodes[term]
        children = tuple(_place(source, child, target, number) for child in node.children)
        if "commutative" in OPERATORS[node.op].traits:
            children = tuple(sorted(children))
        number[term] = target.add(Node(node.op, node.attrs, children), source.types[term], source.constant[term])
    return number[term]
