"""Derives the rewrite rules of TASO from the laws: grows the left side and looks for the right side in its e-class.

Run as ``python -m bench.laws.taso [--data DIR] [--rule "single 7"]``. The folder is also read from TASO_RULES.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.laws.taso_rules import Rule, Shapes, build, read_rules
from bench.laws.taso_shapes import assignments
from torch_eqsat.egraph.egraph import EGraph
from torch_eqsat.egraph.snapshot import Snapshot
from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.graph.emitter import Evaluator
from torch_eqsat.graph.lowering import lower
from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.term import Node, TermGraph
from torch_eqsat.laws.assumptions import EVERYTHING
from torch_eqsat.laws.law import Law
from torch_eqsat.rewrites import catalogue

DATA = Path(os.environ.get("TASO_RULES", Path(__file__).resolve().parents[3] / "shared/data/taso_rules"))


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one attempt: ``rounds`` of all laws, ``nodes`` of the e-graph."""

    rounds: int = 6
    nodes: int = 4000


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Validity:
    """``shapes`` is the most general assignment for which both sides agree in value (None: there is none); of
    ``typed`` well-typed assignments that were tried, ``wrong`` disagree, ``counterexample`` for one."""

    shapes: Shapes | None
    typed: int
    wrong: int
    counterexample: Shapes | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """``lhs``: the right side is in the e-graph grown from the left side alone, in the left side's e-class. ``both``:
    the two are in one e-class of the e-graph grown from both. ``rounds`` and ``nodes`` are of the last attempt for
    lhs, and ``stop`` says what ended it: "identical", "found", "saturated", "rounds", "node limit"."""

    rule: Rule
    validity: Validity
    lhs: bool
    both: bool
    rounds: int
    nodes: int
    stop: str


def sides(rule: Rule, shapes: Shapes) -> tuple[TermGraph, list[int], TermGraph, list[int]]:
    """The left sides' graph with their roots, and that graph extended by the right sides with the roots of those."""
    graphs = []
    for expressions in (rule.lefts, rule.lefts + rule.rights):
        graph = TermGraph()
        t = Builder(GraphStore(graph))
        inputs = {name: t.input(shape) for name, shape in sorted(shapes.items())}
        graph.roots = [build(expression, t, inputs).id for expression in expressions]
        graphs.append(graph)
    left, both = graphs
    return left, left.roots, both, both.roots[len(rule.rights) :]


# Values


def validity(rule: Rule) -> Validity:
    """Evaluate both sides on small integers in float64, where sums and products are exact, for all assignments."""
    holding: list[Shapes] = []
    failing: list[Shapes] = []
    try:
        found = assignments(rule)
    except TypeMismatchError:
        return Validity(None, 0, 0, None)
    for shapes in found:
        (holding if agrees(rule, shapes) else failing).append(shapes)
    return Validity(next(iter(holding), None), len(found), len(failing), next(iter(failing), None))


def agrees(rule: Rule, shapes: Shapes) -> bool:
    """Whether both sides are one term, or have one value on small integers in float64."""
    _, lefts, graph, rights = sides(rule, shapes)
    if lefts == rights:
        return True
    values = evaluate(graph)
    return all(torch.equal(values[a], values[b]) for a, b in zip(lefts, rights, strict=True))


def evaluate(graph: TermGraph, seed: int = 0) -> list[torch.Tensor]:
    """The value of each node of ``graph``, inputs being small integers in float64."""
    generator = torch.Generator().manual_seed(seed)
    values: list[torch.Tensor] = []
    for node, type_ in zip(graph.nodes, graph.types, strict=True):
        assert type_ is not None
        if node.op == "input":
            values.append(torch.randint(-4, 5, type_.shape, generator=generator).double())
            continue
        types = [t for child in node.children if (t := graph.types[child]) is not None]
        values.append(lower(Evaluator(), node, [values[child] for child in node.children], types))
    return values


# Derivation


class Finder:
    """Looks terms up in a snapshot without adding any."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.find = snapshot.find
        self.owners: dict[Node, set[int]] = {}
        for node, owner in zip(snapshot.nodes, snapshot.classes, strict=True):
            self.owners.setdefault(_sorted_operands(node), set()).add(owner)

    def classes(self, graph: TermGraph, root: int, loaded: int) -> set[int]:
        """The e-classes that hold the term ``root`` of ``graph``, whose first ``loaded`` terms are in the egraph."""
        if root < loaded:
            return {self.find(root)}
        node = graph.nodes[root]
        forms: list[tuple[int, ...]] = [()]
        for child in node.children:
            forms = [(*form, c) for form in forms for c in self.classes(graph, child, loaded)]
        found: set[int] = set()
        for form in forms:
            found |= self.owners.get(_sorted_operands(Node(node.op, node.attrs, form)), set())
        return found


def _sorted_operands(node: Node) -> Node:
    commutes = "commutative" in OPERATORS[node.op].traits
    return Node(node.op, node.attrs, tuple(sorted(node.children))) if commutes else node


def _grow(
    graph: TermGraph, goal: TermGraph, pairs: Sequence[tuple[int, int]], laws: Sequence[Law], limits: Limits
) -> tuple[bool, int, int, str]:
    """Apply ``laws`` to ``graph`` until both terms of each pair of ``goal`` are in one e-class: whether they are, the
    rounds, the terms, and what ended it. The first terms of ``goal`` have to be those of ``graph``."""
    egraph = EGraph(laws, limits.nodes, EVERYTHING)
    try:
        egraph.load(graph)
        stop = ""
        for count in range(limits.rounds + 1):
            finder = Finder(egraph.snapshot())
            if all(finder.find(a) in finder.classes(goal, b, len(graph)) for a, b in pairs):
                return True, count, egraph.size, "identical" if count == 0 else "found"
            if stop or count == limits.rounds:
                break
            step = egraph.apply(laws)
            stop = "node limit" if step.truncated else "" if step.fired else "saturated"
        return False, count, egraph.size, stop or "rounds"
    finally:
        egraph.close()


def derive(rule: Rule, laws: Sequence[Law], limits: Limits = LIMITS) -> Verdict:
    """Try to derive ``rule`` from ``laws``, all of them in every round, for its most general shapes."""
    known = validity(rule)
    if known.shapes is None:
        return Verdict(rule, known, False, False, 0, 0, "wrong" if known.typed else "ill-typed")
    left, lefts, both, rights = sides(rule, known.shapes)
    pairs = list(zip(lefts, rights, strict=True))
    found, rounds, nodes, stop = _grow(left, both, pairs, laws, limits)
    joined = found or _grow(both, both, pairs, laws, limits)[0]
    return Verdict(rule, known, found, joined, rounds, nodes, stop)


# Report


def _shapes_text(shapes: Shapes | None) -> str:
    return ", ".join(f"?{name} {list(shape)}" for name, shape in sorted((shapes or {}).items()))


def format_table(verdicts: Sequence[Verdict]) -> str:
    """A line for each rule, then what is not derived and what does not hold for all well-typed shapes."""
    lines = [f"{'rule':12}{'lhs':>5}{'both':>6}{'rounds':>8}{'nodes':>7}  ended by"]
    for v in verdicts:
        marks = ["yes" if found else "no" for found in (v.lhs, v.both)]
        lines.append(f"{v.rule.name:12}{marks[0]:>5}{marks[1]:>6}{v.rounds:8}{v.nodes:7}  {v.stop}")
    for kind in ("single", "multi"):
        of_kind = [v for v in verdicts if v.rule.name.startswith(kind)]
        lines.append(f"{kind}: {sum(v.lhs for v in of_kind)} of {len(of_kind)} derived from the left side")
    for v in verdicts:
        if not v.lhs:
            lines.append(f"not derived: {v.rule.name} ({v.stop}): {v.rule.text}")
    for v in verdicts:
        if v.validity.wrong:
            lines.append(
                f"unsound: {v.rule.name} is wrong for {v.validity.wrong} of {v.validity.typed} well-typed assignments "
                f"of shapes, such as {_shapes_text(v.validity.counterexample)}: {v.rule.text}"
            )
    return "\n".join(lines)


def summary(verdicts: Sequence[Verdict]) -> dict[str, object]:
    """The rows of the results: how many rules are derived, which are not and why, which are wrong for some shapes."""
    derived = [v.rule.name for v in verdicts if v.lhs]
    return {
        "taso_single_derived": sum(name.startswith("single") for name in derived),
        "taso_multi_derived": sum(name.startswith("multi") for name in derived),
        "taso_not_derived": {v.rule.name: v.stop for v in verdicts if not v.lhs},
        "taso_wrong_for_some_shapes": {
            v.rule.name: f"{v.validity.wrong} of {v.validity.typed}, such as {_shapes_text(v.validity.counterexample)}"
            for v in verdicts
            if v.validity.wrong
        },
    }


def main() -> None:
    """Derive the rules and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the rules (default: %(default)s)")
    parser.add_argument("--rule", action="append", help="derive only the rule of this name, such as 'multi 2'")
    options = parser.parse_args()
    if not (options.data / "converted.txt").is_file():
        print(f"skipped: {options.data} does not hold the rules converted.txt and converted_multi.txt")
        return
    laws = catalogue()
    rules = [rule for rule in read_rules(options.data) if not options.rule or rule.name in options.rule]
    print(format_table([derive(rule, laws) for rule in rules]))


if __name__ == "__main__":
    main()
