"""Derives the rewrite rules of TASO from the laws: grows the left side and looks for the right side in its e-class.

Run as ``python -m bench.taso [--data DIR] [--rule "single 7"]``. The folder is also read from TASO_RULES.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch_eqsat.rewrites import catalogue

from bench.taso_rules import Rule, Shapes, assignments, build, read_rules
from torch_eqsat.egraph.session import Session, Snapshot
from torch_eqsat.graph.lowering import Evaluator, lower
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.term import Node, TermGraph
from torch_eqsat.rules.builder import Builder, GraphStore
from torch_eqsat.rules.law import Law
from torch_eqsat.rules.pattern import applications

DATA = Path(os.environ.get("TASO_RULES", Path(__file__).resolve().parent.parent.parent / "shared/data/taso_rules"))


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one attempt: ``rounds`` of all laws, ``nodes`` of the e-graph."""

    rounds: int = 6
    nodes: int = 4000


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
    holding, failing = [], []
    found = assignments(rule)
    for shapes in found:
        _, lefts, graph, rights = sides(rule, shapes)
        values = evaluate(graph)
        same = all(torch.equal(values[a], values[b]) for a, b in zip(lefts, rights, strict=True))
        (holding if same else failing).append(shapes)
    return Validity(next(iter(holding), None), len(found), len(failing), next(iter(failing), None))


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


class _Finder:
    """Looks terms up in a snapshot without adding any."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.find = snapshot.find
        self.owners: dict[Node, set[int]] = {}
        for node, owner in zip(snapshot.nodes, snapshot.classes, strict=True):
            self.owners.setdefault(_sorted_operands(node), set()).add(owner)

    def classes(self, graph: TermGraph, root: int, loaded: int) -> set[int]:
        """The e-classes that hold the term ``root`` of ``graph``, whose first ``loaded`` terms are in the session."""
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
    session = Session(laws, limits.nodes)
    try:
        session.load(graph)
        stop = ""
        for count in range(limits.rounds + 1):
            finder = _Finder(session.snapshot())
            if all(finder.find(a) in finder.classes(goal, b, len(graph)) for a, b in pairs):
                return True, count, session.size, "identical" if count == 0 else "found"
            if stop or count == limits.rounds:
                break
            step = session.apply(laws)
            stop = "node limit" if step.truncated else "" if step.fired else "saturated"
        return False, count, session.size, stop or "rounds"
    finally:
        session.close()


def relevant(laws: Sequence[Law], graph: TermGraph) -> list[Law]:
    """The laws that match only operators that occur in ``graph``."""
    operators = {node.op for node in graph.nodes}
    return [law for law in laws if {a.op for a in applications(law.pattern)} <= operators]


def derive(rule: Rule, laws: Sequence[Law], limits: Limits = Limits()) -> Verdict:
    """Try to derive ``rule`` from ``laws``: first from those over the rule's own operators, then from all."""
    known = validity(rule)
    if known.shapes is None:
        return Verdict(rule, known, False, False, 0, 0, "ill-typed" if not known.typed else "wrong")
    left, lefts, both, rights = sides(rule, known.shapes)
    pairs = list(zip(lefts, rights, strict=True))
    chosen = [relevant(laws, both), list(laws)]
    for subset in chosen:
        found, rounds, nodes, stop = _grow(left, both, pairs, subset, limits)
        if found:
            return Verdict(rule, known, True, True, rounds, nodes, stop)
    joined = any(_grow(both, both, pairs, subset, limits)[0] for subset in chosen)
    return Verdict(rule, known, False, joined, rounds, nodes, stop)


# Report


def _shapes_text(shapes: Mapping[str, tuple[int, ...]] | None) -> str:
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
