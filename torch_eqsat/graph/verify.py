"""Checks laws on tensors: every e-node of an e-class has to compute the same value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from torch_eqsat.egraph.session import Session, Snapshot
from torch_eqsat.graph.lowering import Evaluator, lower
from torch_eqsat.ir.term import Node, TermGraph
from torch_eqsat.rules.builder import Builder, GraphStore
from torch_eqsat.rules.law import Law
from torch_eqsat.rules.pattern import build_example


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether a law fired on an example, and the first e-node that disagrees with its e-class ("" if none does)."""

    fired: bool
    disagreement: str


def verify_example(law: Law, example: str, seed: int = 0) -> Verification:
    """Apply ``law`` once to the term ``example`` and evaluate all e-nodes on small integers in float64.

    Sums and products of small integers are exact there, so polynomial laws have to hold to the last bit; attention
    and other functions are compared to 1e-12 of the largest value.
    """
    graph = TermGraph()
    graph.roots = [build_example(example, Builder(GraphStore(graph))).id]
    session = Session([law])
    try:
        session.load(graph)
        step = session.apply([law])
        snapshot = session.snapshot()
    finally:
        session.close()
    return Verification(bool(step.fired), find_disagreement(snapshot, seed))


def find_disagreement(snapshot: Snapshot, seed: int = 0) -> str:
    """The first e-node of ``snapshot`` whose value differs from its e-class's; "" if there is none."""
    generator = torch.Generator().manual_seed(seed)
    values: dict[int, torch.Tensor] = {}
    waiting = list(zip(snapshot.classes, snapshot.nodes, strict=True))
    while waiting:
        later = []
        for owner, node in waiting:
            if not all(child in values for child in node.children):
                later.append((owner, node))
                continue
            value = _evaluate(node, values, snapshot, owner, generator)
            known = values.setdefault(owner, value)
            scale = float(known.abs().max()) if known.numel() else 0.0
            if not torch.allclose(known, value, rtol=0.0, atol=1e-12 * scale):
                return f"{node} of e-class {owner}: off by {float((known - value).abs().max())} of {scale}"
        if len(later) == len(waiting):
            break  # the rest is cyclic
        waiting = later
    return ""


def _evaluate(
    node: Node, values: dict[int, torch.Tensor], snapshot: Snapshot, owner: int, generator: torch.Generator
) -> torch.Tensor:
    type_ = snapshot.types[owner]
    assert type_ is not None
    if node.op == "input":
        if times := dict(node.attrs).get("repeats", 0):
            return (torch.arange(type_.numel) // times).reshape(type_.shape)
        if type_.dtype == "int64":
            return torch.randint(0, 2, type_.shape, generator=generator)
        return torch.randint(-4, 5, type_.shape, generator=generator).double()
    args = [values[child] for child in node.children]
    types = [t for child in node.children if (t := snapshot.types[child]) is not None]
    if node.op == "pointwise":
        return _pointwise(args)
    value = lower(Evaluator(), _in_double(node), args, types)
    return torch.tensor(value, dtype=torch.float64) if isinstance(value, (int, float)) else value


def _pointwise(args: Sequence[torch.Tensor]) -> torch.Tensor:
    """A function with no algebra of its own: 1 more than the alternating sum, cubed."""
    total = torch.ones((), dtype=torch.float64)
    for i, arg in enumerate(args):
        total = total + (arg if i % 2 == 0 else -arg)
    return total**3


def _in_double(node: Node) -> Node:
    attrs = tuple((name, "float64" if name == "dtype" else value) for name, value in node.attrs)
    return Node(node.op, attrs, node.children)
