"""Which laws follow from the others at small size, and which are one another with other names.

Run as ``python -m bench.laws.redundancy [--law NAME]``. A law that follows from others may still be worth having, where
the way over the others is long or leads through a large e-graph; the list is for a person to read.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from bench.laws.taso import Finder
from torch_eqsat.egraph.egraph import EGraph
from torch_eqsat.errors import EqsatError
from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.laws.assumptions import EVERYTHING
from torch_eqsat.laws.example import build_example
from torch_eqsat.laws.law import Law
from torch_eqsat.laws.matcher import rewrites
from torch_eqsat.laws.pattern import Pattern, Variable, commuted
from torch_eqsat.laws.transfer import guarded
from torch_eqsat.rewrites import catalogue

ROUNDS, NODES = 3, 300


@dataclass(frozen=True, slots=True)
class Redundancy:
    """``derived`` are names of laws that the others give on all their examples, within ``ROUNDS`` rounds and ``NODES``
    e-nodes; ``variants`` are pairs of laws with one pattern and one right side; ``failed`` says of laws that raised an
    error on some match, what it was."""

    derived: tuple[str, ...]
    variants: tuple[tuple[str, str], ...]
    failed: tuple[str, ...]


def redundancy(laws: Sequence[Law], chosen: Sequence[Law] | None = None) -> Redundancy:
    """What of ``chosen`` (all, if it is not given) the other ``laws`` make superfluous."""
    failures: dict[str, str] = {}
    safe = [guarded(law, failures) for law in laws]
    asked = {law.name for law in laws if chosen is None or law in chosen}
    egraph = EGraph(safe, NODES, EVERYTHING)
    try:
        derived = tuple(law.name for law in safe if law.name in asked and is_derived(law, safe, egraph))
    finally:
        egraph.close()
    return Redundancy(derived, tuple(alpha_variants(laws)), tuple(failures.values()))


def _build(example: str) -> TermGraph:
    graph = TermGraph()
    graph.roots = [build_example(example, Builder(GraphStore(graph))).id]
    return graph


def is_derived(law: Law, laws: Sequence[Law], egraph: EGraph) -> bool:
    """Whether the right side of ``law`` is found from its left side by the other ``laws``, on each of its examples.
    ``egraph`` knows all laws and is empty. Expansive laws wait for the search to choose them; they make another
    expansive law superfluous, but none that is applied without being asked for."""
    others = [other for other in laws if other is not law and (law.expansive or not other.expansive)]
    return all(_follows(law, others, egraph, example) for example in law.examples)


def _follows(law: Law, others: Sequence[Law], egraph: EGraph, example: str) -> bool:
    graph = _build(example)
    goal = copy.deepcopy(graph)
    found = rewrites(law, goal)
    pairs = found if law.siblings else [pair for pair in found if pair[0] == graph.roots[0]] or found
    egraph.push()
    try:
        egraph.load(graph)
        for _ in range(ROUNDS):
            step = egraph.apply(others)
            finder = Finder(egraph.snapshot())
            if all(finder.find(old) in finder.classes(goal, new, len(graph)) for old, new in pairs):
                return True
            if step.truncated or not step.fired:
                return False
        return False
    finally:
        egraph.pop()


def alpha_variants(laws: Sequence[Law]) -> list[tuple[str, str]]:
    """Pairs of laws whose patterns are equal but for names and order, and which build the same on the examples of
    both."""
    groups: dict[str, list[Law]] = {}
    for law in laws:
        groups.setdefault(f"{law.siblings} {_canonical(law.pattern)}", []).append(law)
    return [
        (a.name, b.name)
        for group in groups.values()
        for a, b in combinations(group, 2)
        if all(_agree(a, b, example) for example in (*a.examples, *b.examples))
    ]


def _canonical(pattern: Pattern) -> str:
    return min(_text(variant, {}) for variant in commuted(pattern))


def _text(pattern: Pattern, names: dict[str, int]) -> str:
    if isinstance(pattern, Variable):
        return f"x{names.setdefault(pattern.name, len(names))}"
    value = "" if pattern.value is None else f"{pattern.value} "
    return f"{pattern.op}({value}{', '.join([_text(child, names) for child in pattern.children])})"


def _agree(a: Law, b: Law, example: str) -> bool:
    graph = _build(example)
    try:
        first, second = (set(rewrites(law, copy.deepcopy(graph))) for law in (a, b))
    except EqsatError:
        return False
    return bool(first) and first == second


def format_redundancy(result: Redundancy) -> str:
    """The lists as text."""
    lines = [f"{len(result.derived)} laws follow from the others within {ROUNDS} rounds and {NODES} e-nodes"]
    lines += [f"  {name}" for name in result.derived]
    lines.append(f"{len(result.variants)} pairs of laws are one law")
    lines += [f"  {a} = {b}" for a, b in result.variants]
    return "\n".join([*lines, *(f"FAILED: {problem}" for problem in result.failed)])


def main() -> None:
    """Print what is redundant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--law", action="append", help="ask only about the law (or the declaration) of this name")
    options = parser.parse_args()
    laws = catalogue()
    chosen = [law for law in laws if not options.law or law.is_named_by(options.law)]
    print(format_redundancy(redundancy(laws, chosen)))


if __name__ == "__main__":
    main()
