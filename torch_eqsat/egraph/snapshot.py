"""Snapshots of an e-graph: its rows, and a hash of its content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch_eqsat.ir.term import Node
from torch_eqsat.ir.types import TensorType

# A difference changes the e-classes near it, and the hash covers all e-classes, so a few rounds are enough.
_ROUNDS_OF_REFINEMENT = 2


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rows of an e-graph: e-node i is ``nodes[i]`` in e-class ``classes[i]``. Children are e-class ids; the id of
    an e-class is the smallest id of its terms. ``terms[i]`` is the first term that was this e-node, ``laws[i]`` the law
    that made it ("" if it was loaded)."""

    nodes: list[Node]
    classes: list[int]
    terms: list[int]
    laws: list[str]
    types: dict[int, TensorType | None]
    constant: dict[int, bool]
    find: Callable[[int], int]


def snapshot_of(
    found: Iterable[tuple[int, Node]],
    terms: Sequence[Node],
    class_of: Sequence[int],
    laws: Sequence[str],
    types: Sequence[TensorType | None],
    constant: Sequence[bool],
) -> Snapshot:
    """A snapshot of the e-nodes ``found``, each given with its e-class, sorted by their first terms. The other
    arguments are by term."""
    first = {}
    for number in reversed(range(len(terms))):
        node = terms[number]
        first[Node(node.op, node.attrs, tuple(class_of[c] for c in node.children))] = number
    rows = sorted((first[node], c, node) for c, node in found if node in first)
    roots = {c for _, c, _ in rows}
    return Snapshot(
        nodes=[node for _, _, node in rows],
        classes=[c for _, c, _ in rows],
        terms=[term for term, _, _ in rows],
        laws=[laws[term] for term, _, _ in rows],
        types={c: types[c] for c in roots},
        constant={c: constant[c] for c in roots},
        find=list(class_of).__getitem__,
    )


def content_of(
    terms: Sequence[Node],
    kinds: Sequence[int],
    class_of: Sequence[int],
    members: Mapping[int, Sequence[int]],
    loaded: int,
) -> int:
    """A hash of 64 bits that is equal for equal e-graphs of one loaded graph. ``kinds`` are hashes of the terms'
    operators, ``members`` the terms of each e-class; the first ``loaded`` terms were captured.

    It takes rounds of colour refinement (Weisfeiler and Leman 1968): the colour of an e-class is at first its loaded
    term, and is then refined by its e-nodes and the e-classes that they use.
    """

    def colour_of(term: int) -> int:
        children = terms[term].children
        return hash((kinds[term], *(colour[class_of[child]] for child in children))) if children else kinds[term]

    colour = {root: root if root < loaded else -1 for root in members}
    for _ in range(_ROUNDS_OF_REFINEMENT):
        colour = {
            root: hash((colour[root], *sorted({colour_of(member) for member in own}))) for root, own in members.items()
        }
    return sum(colour.values()) & (2**64 - 1)
