"""Checks e-graphs on tensors: all e-nodes of an e-class must compute the same value."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from torch_eqsat.egraph.snapshot import Snapshot
from torch_eqsat.verification.interpreter import Drawing, apply, draw_input


def find_disagreement(
    snapshot: Snapshot, seed: int = 0, inputs: Mapping[str, torch.Tensor] | None = None, floor: float = 0.0
) -> str:
    """The first e-node of ``snapshot`` whose value differs from that of its e-class, with the law that made it; "" if
    there is none.

    Each e-class has one value, on which all e-nodes that use it are run, so this covers every choice of e-nodes. Inputs
    are small integers in float64, or those given by name. Values may differ by 1e-12 of the largest element plus
    ``floor``, which allows for laws that cancel.
    """
    given = inputs or {}
    generator = torch.Generator().manual_seed(seed)
    values: dict[int, torch.Tensor] = {}
    waiting = list(zip(snapshot.classes, snapshot.nodes, snapshot.laws, strict=True))
    while waiting:
        later = []
        for owner, node, law in waiting:
            if not all(child in values for child in node.children):
                later.append((owner, node, law))
                continue
            type_ = snapshot.types[owner]
            assert type_ is not None
            if node.op == "input" and node["name"] in given:
                value = given[node["name"]]
            elif node.op == "input":
                value = draw_input(node, type_, Drawing(), generator)
            else:
                types = [t for child in node.children if (t := snapshot.types[child]) is not None]
                try:
                    value = apply(node, [values[child] for child in node.children], types, "float64")
                except RuntimeError as error:  # operands that the type rules accept and torch refuses
                    return f"{node} of e-class {owner}, made by {law or 'nothing'}: {error}"
            known = values.setdefault(owner, value)
            if problem := difference(known, value, 1e-12, floor):
                return f"{node} of e-class {owner}, made by {law or 'nothing'}: {problem}"
        if len(later) == len(waiting):
            break  # the rest is cyclic
        waiting = later
    return ""


def difference(a: torch.Tensor, b: torch.Tensor, tolerance: float, floor: float = 0.0) -> str:
    """The difference of two tensors in words, if it exceeds ``tolerance`` times the largest finite element plus
    ``floor``; "" otherwise. NaN equals NaN, and infinities equal themselves."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{a.dtype}{list(a.shape)} against {b.dtype}{list(b.shape)}"
    if not a.is_floating_point():
        return "" if torch.equal(a, b) else f"{int((a != b).sum())} elements differ"
    finite = a[a.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    if torch.allclose(a, b, rtol=0.0, atol=tolerance * scale + floor, equal_nan=True):
        return ""
    gap = (a - b).abs().nan_to_num(posinf=float("inf"))
    return f"off by {float(gap.max()):.3g} of {scale:.3g}"
