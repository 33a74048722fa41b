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
from collections.abc import Collection
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
    try:
        with config.patch(_OTHERS):
            joint_graph_passes(copy.owning_module)
        found = int(counters["inductor"]["fuse_attention"] - before)
        wrong = found and next((name for name in _replaced(graph, copy) if not _is_same(graph, copy, name)), "")
    except Exception as error:  # as Inductor would in its own place
        found, wrong = 0, first_line(error)
    if wrong:
        logger.warning("Inductor's patterns are switched off for a graph whose attention they get wrong: %s", wrong)
        counters["inductor"]["fuse_attention"] = before
        config.pattern_matcher = False  # until the end of this compilation, see `Compilation`
        return 0
    if found:
        become(graph, copy)
    return found


def _replaced(graph: Graph, copy: Graph) -> list[str]:
    """The names of calls that have another call as an operand in ``copy`` than in ``graph``, one that is new there."""
    names = {node.name for node in graph.nodes}
    return [n.name for n in copy.nodes if n.name in names and any(x.name not in names for x in n.all_input_nodes)]


def _is_same(graph: Graph, copy: Graph, name: str) -> bool:
    """Whether the operands of the call ``name`` are the same in both graphs, computed on random numbers from the calls
    that both have."""
    old, new = ({node.name: node for node in g.nodes} for g in (graph, copy))
    values: dict[str, Any] = {}
    with unset_fake_temporarily(), torch.no_grad(), torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        for one, other in zip(old[name].all_input_nodes, new[name].all_input_nodes, strict=True):
            if other.name in old:
                continue
            try:
                made = _computed(other, old.keys(), values)
                # A call that both graphs have is drawn once; all else is computed from those.
                expected = _computed(one, (), dict(values))
            except _RandomError:
                continue
            if not _is_close(expected, made):
                return False
    return True


class _RandomError(Exception):
    """A value is random, so that there is nothing to compare."""


def _computed(node: FxNode, shared: Collection[str], values: dict[str, Any]) -> Any:
    """The value of ``node``, from ``values`` by name; those of ``shared`` calls and of inputs are drawn. Raises
    _RandomError if a call on the way is random."""
    if node.name in values:
        return values[node.name]
    if node.op != "call_function" or node.name in shared:
        result = _drawn(node.meta["val"])
    elif is_pinned(node):
        raise _RandomError(node.name)
    else:
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda n: _computed(n, shared, values))
        result = node.target(*args, **kwargs)
    values[node.name] = result
    return result


def _drawn(fake: Any) -> Any:
    """Random numbers of the size and dtype of ``fake``; zeros for integers, which may be indices."""
    if isinstance(fake, (torch.SymInt, torch.SymFloat)):
        return fake.node.hint
    shape = [n.node.hint if isinstance(n, torch.SymInt) else n for n in fake.shape]
    if fake.is_floating_point():
        return torch.randn(shape, dtype=fake.dtype, device=fake.device)
    return torch.zeros(shape, dtype=fake.dtype, device=fake.device)


def _is_close(one: Any, other: Any) -> bool:
    """Whether two values differ by rounding alone, where both are finite: a pattern for other axes is far off."""
    if not isinstance(one, torch.Tensor):
        return bool(one == other)
    if one.shape != other.shape:
        return False
    a, b = one.double(), other.double()
    finite = a.isfinite() & b.isfinite()
    return bool((a - b)[finite].norm() <= CLOSE * a[finite].norm())
