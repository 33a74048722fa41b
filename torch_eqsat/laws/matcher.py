"""Applies one law to a term graph without an e-graph: for checks of declarations, verification and documentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch_eqsat.errors import LawError, TypeMismatchError
from torch_eqsat.ir.builder import Builder, GraphStore, Handle
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.laws.assumptions import EVERYTHING, hold
from torch_eqsat.laws.example import build_example
from torch_eqsat.laws.law import Law
from torch_eqsat.laws.pattern import Pattern, Variable, commuted
from torch_eqsat.laws.sizes import Sizes, smaller_operands

Binding = dict[str, Handle]


def matches(law: Law, graph: TermGraph) -> Iterator[Binding]:
    """The bindings of the left side's variables for each place of ``graph`` where it matches. The whole match is bound
    to the pattern's name."""
    for variant in commuted(law.pattern):
        for index, type_ in enumerate(graph.types):
            if type_ is not None and (bound := _match(variant, index, graph, {}, law.sizes)) is not None:
                yield bound


def _match(pattern: Pattern, index: int, graph: TermGraph, bound: Binding, sizes: Sizes) -> Binding | None:
    node, type_ = graph.nodes[index], graph.types[index]
    if type_ is None:
        return None
    if isinstance(pattern, Variable):
        known = bound.get(pattern.name)
        if known is not None:
            return bound if known.id == index else None
        return {**bound, pattern.name: Handle(index, type_)}
    if pattern.constructor != (node.op, len(node.children)):
        return None
    if pattern.value is not None and node["value"] != pattern.value:
        return None
    mask = sizes.mask(pattern)
    if mask is not None and mask != smaller_operands([graph.types[child] for child in node.children], type_):
        return None
    for child, operand in zip(pattern.children, node.children, strict=True):
        extended = _match(child, operand, graph, bound, sizes)
        if extended is None:
            return None
        bound = extended
    if pattern.name:
        operands = tuple(handle(graph, child) for child in node.children)
        bound = {**bound, pattern.name: Handle(index, type_, node.op, node.attrs, operands)}
    return bound


def handle(graph: TermGraph, index: int) -> Handle:
    """A handle of the term, which must be a tensor."""
    type_ = graph.types[index]
    assert type_ is not None
    return Handle(index, type_)


def rewrites(law: Law, graph: TermGraph, granted: frozenset[str] = EVERYTHING) -> list[tuple[int, int]]:
    """Pairs of terms that ``law`` makes equal; the second of each pair is newly built in ``graph``. The law's
    assumptions must be ``granted`` or known.

    Raises LawError if the two differ in shape or dtype.
    """
    store = GraphStore(graph)
    found = [bound for bound in matches(law, graph) if hold(law.assumptions, bound, store, granted)]
    builder = Builder(store)
    root = law.pattern.name
    pairs: list[tuple[Handle, Handle | None]] = []
    if law.siblings:
        unique = list({bound[root].id: bound for bound in found}.values())
        for key in dict.fromkeys(_group(law, bound, root) for bound in unique):
            members = [bound for bound in unique if _group(law, bound, root) == key]
            results: Any = _attempt(law, builder, [members]) if len(members) > 1 else None
            pairs += zip((bound[root] for bound in members), results or [], strict=False)
    else:
        for bound in found:
            pairs.append((bound[root], _attempt(law, builder, [bound[name] for name in law.parameters])))
    for old, new in pairs:
        if new is not None and new.type != old.type:
            raise LawError(f"law {law.name} ({law.source}) turns {old.type} into {new.type}")
    return [(old.id, new.id) for old, new in pairs if new is not None and new.id != old.id]


def _group(law: Law, bound: Binding, root: str) -> tuple[object, ...]:
    return bound[law.shared].id if law.shared else None, bound[root].attrs


def _attempt(law: Law, builder: Builder, arguments: Sequence[Any]) -> Any:
    try:
        return law.build(builder, *arguments)
    except TypeMismatchError:
        return None


def check_examples(law: Law) -> None:
    """Raise LawError, naming the law, its file and line, unless the law fires on its examples and keeps their types."""
    for example in law.examples:
        graph = TermGraph()
        try:
            build_example(example, Builder(GraphStore(graph)))
            fired = rewrites(law, graph)
        except (TypeMismatchError, LawError, SyntaxError) as error:
            raise LawError(f"law {law.name} ({law.source}): {error}, on example {example}") from error
        if not fired:
            raise LawError(f"law {law.name} ({law.source}) does not fire on its example {example}")
