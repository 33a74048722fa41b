"""Compiles laws to egglog: each left side becomes a query that fills a table of matches.

Right sides are built in Python from these matches, like egg's dynamic appliers. Their shapes, guards and views need
arithmetic on whole shapes, for which egglog's vectors have no operations.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch_eqsat.laws.law import Law
from torch_eqsat.laws.pattern import ROOT, Application, Pattern, Variable, applications, commuted
from torch_eqsat.laws.sizes import Sizes, is_broadcast


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a match table: the e-class bound to ``name``, or, with ``attribute``, the interned attributes of its
    operator ``op``. ``operands`` are the names of that operator's operands; ``value`` is the required value of a
    scalar."""

    name: str
    op: str = ""
    attribute: bool = False
    operands: tuple[str, ...] = ()
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """What finds the matches of a law: its ``number``, the ``relation`` of the matches of all laws with such columns
    (first the law's number), the ruleset, the columns, and the program texts that declare them, by name."""

    number: int
    relation: str
    ruleset: str
    columns: tuple[Column, ...]
    texts: dict[str, str]


def constructor(op: str, arity: int) -> str:
    """The egglog constructor for ``op`` with ``arity`` operands. Its first argument is the attributes' number; if it
    `is_broadcast` the second one tells which operands are smaller. To ask for it costs a query nothing; with the
    numbers of elements of all e-classes, as a function that queries join, these took four times as long."""
    return f"{op}_{arity}"


READ, EQUAL = "read", "equal"
"""The ruleset that makes e-nodes of rows of integers, and the relation of the pairs of terms to unite."""
CLEAR = "clear"
"""The ruleset that deletes the matches of laws, and the relation of these laws' numbers."""
BASE = f"""(sort T)
(constructor node (i64) T)
(ruleset {READ})
(relation {EQUAL} (i64 i64))
(rule (({EQUAL} a b)) ((union (node a) (node b)) (delete ({EQUAL} a b))) :ruleset {READ})
(ruleset {CLEAR})
(relation {CLEAR}_laws (i64))
(rule (({CLEAR}_laws n)) ((delete ({CLEAR}_laws n))) :ruleset {CLEAR})"""
"""What every engine is told first."""


def rows_of(op: str, arity: int) -> str:
    """The relation of the terms to add: a term's number, that of its attributes, which operands are smaller if it
    `is_broadcast`, and the numbers of its operands."""
    return f"new_{constructor(op, arity)}"


def declare(op: str, arity: int) -> str:
    """The constructor, and the rule that makes e-nodes of the rows of its relation."""
    name, table = constructor(op, arity), rows_of(op, arity)
    mask, sort = (" m", " i64") if is_broadcast(op, arity) else ("", "")
    row = f"({table} n k{mask}{''.join(f' c{i}' for i in range(arity))})"
    term = f"({name} k{mask}{''.join(f' (node c{i})' for i in range(arity))})"
    return f"""(constructor {name} (i64{sort}{" T" * arity}) T)
(relation {table} (i64 i64{sort}{" i64" * arity}))
(rule ({row}) ((union (node n) {term}) (delete {row})) :ruleset {READ})"""


def compile_law(law: Law, number: int) -> Query:
    """The query of ``law``; ``number`` makes its names unique.

    Laws share a relation where its columns are of the same sorts: one for each law, and a rule that clears it, made the
    declarations twice as long. Laws that are applied at other times have others, so that few rows are read in vain.
    """
    columns, ruleset = _columns(law.pattern), f"law_{number}"
    kind = "normal" if law.normalises else "siblings" if law.siblings else "expansive" if law.expansive else "other"
    relation = f"match_{kind}_{''.join('k' if column.attribute else 'v' for column in columns)}"
    head = f"({relation} {number} {' '.join(_egglog_name(column) for column in columns)})"
    lines = [f"(ruleset {ruleset})"]
    for i, variant in enumerate(commuted(law.pattern)):
        assert isinstance(variant, Application)
        atoms = " ".join(_atoms(variant, law.sizes))
        lines.append(f'(rule ({atoms}) ({head}) :ruleset {ruleset} :name "law_{number}_{i}")')
    texts = {relation: _declare_matches(relation, columns), ruleset: "\n".join(lines)}
    return Query(number, relation, ruleset, columns, texts)


def _declare_matches(relation: str, columns: tuple[Column, ...]) -> str:
    """The relation, and the rule that deletes the matches of some laws from it."""
    row = f"({relation} n {' '.join(f'v{i}' for i in range(len(columns)))})"
    sorts = " ".join("i64" if column.attribute else "T" for column in columns)
    return f"""(relation {relation} (i64 {sorts}))
(rule (({CLEAR}_laws n) {row}) ((delete {row})) :ruleset {CLEAR})"""


def _columns(pattern: Application) -> tuple[Column, ...]:
    columns: dict[str, Column] = {}
    names = _names(pattern)
    for application in applications(pattern):
        name = names[id(application)]
        operands = tuple(c.name if isinstance(c, Variable) else names[id(c)] for c in application.children)
        columns.setdefault(f"k {name}", Column(name, application.op, True, operands, application.value))
        columns.setdefault(name, Column(name))
    for name in _variables(pattern):
        columns.setdefault(name, Column(name))
    return tuple(columns.values())


def _names(pattern: Application) -> dict[int, str]:
    """A name for each application: its own, or one from its path from the root."""
    names: dict[int, str] = {}

    def visit(node: Pattern, path: str) -> None:
        if isinstance(node, Application):
            names[id(node)] = node.name or path
            for i, child in enumerate(sorted_children(node)):
                visit(child, f"{path}_{i}")

    visit(pattern, ROOT)
    return names


def sorted_children(node: Application) -> list[Pattern]:
    """Children in an order that commuting does not change, so that they have the same names in every variant."""
    return sorted(node.children, key=repr) if len(node.children) > 1 else list(node.children)


def _variables(pattern: Pattern) -> list[str]:
    if isinstance(pattern, Variable):
        return [pattern.name]
    found: list[str] = []
    for child in sorted_children(pattern):
        found += [name for name in _variables(child) if name not in found]
    return found


def _egglog_name(column: Column) -> str:
    return f"{'k' if column.attribute else 'v'}_{column.name}"


def _atoms(pattern: Application, sizes: Sizes) -> list[str]:
    names = _names(pattern)

    def term(node: Pattern) -> str:
        return f"v_{node.name}" if isinstance(node, Variable) else f"v_{names[id(node)]}"

    def atom(node: Application) -> str:
        name = names[id(node)]
        arguments = [f"k_{name}", *map(term, node.children)]
        if is_broadcast(node.op, len(node.children)):
            mask = sizes.mask(node)
            arguments.insert(1, f"m_{name}" if mask is None else str(mask))
        return f"(= v_{name} ({constructor(node.op, len(node.children))} {' '.join(arguments)}))"

    return [atom(node) for node in applications(pattern)]
