"""Attention that is written out, fused before the capture as Inductor fuses it behind our pass.

Inductor's patterns match the calls of a forward as they were written. A rewritten graph has others around the scores
and loses the fused kernel, which no price of the original knew of: frozen layers of attention over 2,048 tokens took
twice as long as without a rewrite. So its passes over joint graphs run once before ours, on a copy, in the same order
and with the same checks. If they fuse attention, the copy is what is captured, and the e-graph holds the fused
operator.

Inductor's checks are not enough. Of a key that is permuted once, in place of transposed after a permutation, a pattern
makes attention over other axes or raises (torch 2.14). So what was replaced is computed both ways on random numbers,
and where it differs Inductor's patterns are switched off for the graph.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch._dynamo.utils import counters
from torch._inductor import config
from torch._inductor.fx_passes.joint_graph import joint_graph_passes
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import Graph
from torch.fx import Node as FxNode

from torch_eqsat.errors import first_line
from torch_eqsat.graph.calls import is_pinned
from torch_eqsat.graph.copies import become, copy_of
from torch_eqsat.graph.emitter import aten

logger = logging.getLogger(__name__)

PRODUCTS = {aten.bmm.default, aten.baddbmm.default}
SUMS = {aten.sum.dim_IntList, aten._softmax.default}
"""Attention has two products, and a softmax between them."""

CLOSE = 0.05  # half precision included
LARGEST = 1 << 27  # elements of scores that are computed for a comparison
# What is not about attention, and is better done behind our pass: passes of others, and matrices filled up to a
# multiple of a size.
_OTHERS = {
    "joint_custom_pre_pass": None,
    "joint_custom_post_pass": None,
    "shape_padding": False,
    "auto_chunker.enable": False,
}


def fuse_attention(graph: Graph) -> int:
    """Fuse the attention in ``graph`` that Inductor would fuse, in place; how often. Without any, and where that is
    wrong, the graph stays as it is."""
    targets = [n.target for n in graph.nodes if n.op == "call_function"] if config.pattern_matcher else []
    if sum(target in PRODUCTS for target in targets) < 2 or SUMS.isdisjoint(targets):
        return 0
    copy = copy_of(graph)
    before = counters["inductor"]["fuse_attention"]
    found, wrong = 0, ""
    try:
        with config.patch(_OTHERS):
            joint_graph_passes(copy.owning_module)
        found = int(counters["inductor"]["fuse_attention"] - before)
    except Exception as error:  # as Inductor would in its own place
        wrong = first_line(error)
    try:
        wrong = wrong or (_wrong_call(graph, copy) if found else "")
    except Exception as error:  # a call that does not run by itself says nothing of the pattern
        logger.info("attention is not fused before the search, for it cannot be compared: %s", first_line(error))
        found, counters["inductor"]["fuse_attention"] = 0, before
    if wrong:
        logger.warning("Inductor's patterns are switched off for a graph whose attention they get wrong: %s", wrong)
        counters["inductor"]["fuse_attention"] = before
        config.pattern_matcher = False  # until the end of this compilation, see `Compilation`
        return 0
    if found:
        become(graph, copy)
    return found


def _wrong_call(graph: Graph, copy: Graph) -> str:
    """The first call that has other values as operands in ``copy`` than in ``graph``; "" if there is none. Layers of
    one form are computed once, and scores too large not at all."""
    old, new = ({node.name: node for node in g.nodes} for g in (graph, copy))
    seen: set[str] = set()
    for name in new:
        if name not in old or all(x.name in old for x in new[name].all_input_nodes):
            continue
        pairs = zip(old[name].all_input_nodes, new[name].all_input_nodes, strict=True)
        for one, other in ((one, other) for one, other in pairs if other.name not in old):
            made, leaves = _between(other, old.keys())
            replaced, _ = _between(one, leaves)
            form = " ".join(map(_described, (*made, "|", *replaced)))
            if form in seen or any(_numel(node) > LARGEST for node in replaced):
                continue
            seen.add(form)
            if not _is_same(one, other, replaced, made):
                return str(name)
    return ""


def _between(node: FxNode, leaves: Collection[str]) -> tuple[list[FxNode], set[str]]:
    """The calls that ``node`` is made by from ``leaves``, in order, and the names of those leaves and inputs."""
    calls: list[FxNode] = []
    visited: set[FxNode] = set()
    found: set[str] = set()
    waiting = [(node, False)]
    while waiting:
        one, is_done = waiting.pop()
        if is_done:
            calls.append(one)
        elif one.op != "call_function" or one.name in leaves:
            found.add(one.name)
        elif one not in visited:
            visited.add(one)
            waiting += [(one, True), *((x, False) for x in one.all_input_nodes)]
    return calls, found


def _described(node: FxNode | str) -> str:
    """A call without the names of its operands."""
    if isinstance(node, str):
        return node
    args = torch.fx.map_arg((node.args, node.kwargs), lambda n: str(getattr(n.meta.get("val"), "shape", "")))
    return f"{node.target}{args}"


def _numel(node: FxNode) -> int:
    fake = node.meta.get("val")
    return math.prod(_shape(fake)) if isinstance(fake, torch.Tensor) else 0


def _is_same(one: FxNode, other: FxNode, replaced: Sequence[FxNode], made: Sequence[FxNode]) -> bool:
    """Whether what ``made`` computes for ``other`` is what ``replaced`` computes for ``one``, on random numbers. What
    is random, or made of more than the other is, cannot be compared."""
    if any(map(is_pinned, (*made, *replaced))):
        return True
    leaves = dict.fromkeys(x for node in made for x in node.all_input_nodes if x not in made)
    drawn = {leaf.name: _drawn(leaf.meta["val"], seed) for seed, leaf in enumerate(leaves)}
    with unset_fake_temporarily(), torch.no_grad():
        try:
            return _is_close(_computed(one, replaced, drawn), _computed(other, made, drawn))
        except KeyError:
            return True


def _computed(node: FxNode, calls: Sequence[FxNode], drawn: Mapping[str, Any]) -> Any:
    """The value of ``node``, the last of ``calls``. Raises KeyError where a value is missing."""
    values = dict(drawn)
    for call in calls:
        args, kwargs = torch.fx.map_arg((call.args, call.kwargs), lambda n: values[n.name])
        values[call.name] = call.target(*args, **kwargs)
    return values[node.name]


def _drawn(fake: Any, seed: int) -> Any:
    """Random numbers of the size and dtype of ``fake``; zeros for integers, which may be indices."""
    if not isinstance(fake, torch.Tensor):
        return fake.node.hint if isinstance(fake, (torch.SymInt, torch.SymFloat)) else fake
    with unset_fake_temporarily():
        if fake.is_floating_point():
            numbers = torch.randn(_shape(fake), generator=torch.Generator().manual_seed(seed))
            return numbers.to(fake.device, fake.dtype)
        return torch.zeros(_shape(fake), dtype=fake.dtype, device=fake.device)


def _shape(fake: torch.Tensor) -> list[int]:
    return [n.node.hint if isinstance(n, torch.SymInt) else n for n in fake.shape]


def _is_close(one: Any, other: Any) -> bool:
    """Whether two values differ by rounding alone, where both are finite: a pattern for other axes is far off."""
    if not isinstance(one, torch.Tensor):
        return bool(one == other)
    if one.shape != other.shape:
        return False
    a, b = one.double(), other.double()
    finite = a.isfinite() & b.isfinite()
    return bool((a - b)[finite].norm() <= CLOSE * a[finite].norm())
