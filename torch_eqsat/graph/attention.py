"""Attention that is written out, made one operator before capture, as Inductor does after this pass.

Inductor's patterns match the calls of a forward as it was written. A rewritten graph has other calls around the scores,
and would lose the fused kernel; so what the patterns find is fused first, and the e-graph holds the fused operator.
"""

from __future__ import annotations

import functools

import torch
from torch._inductor import config
from torch._inductor.fx_passes.fuse_attention import _get_sfdp_patterns
from torch._inductor.fx_passes.post_grad import remove_noop_ops
from torch._inductor.pattern_matcher import PatternMatcherPass, gen_register_replacement, stable_topological_sort
from torch.fx import Graph

from torch_eqsat.graph.copies import undone_on_error
from torch_eqsat.graph.emitter import aten


def fuse_attention(graph: Graph, device: torch.device) -> int:
    """Fuse the attention of ``graph`` that Inductor's patterns match, in place; how often. Calls that do nothing go
    first, as they do in Inductor."""
    targets = {node.target for node in graph.nodes if node.op == "call_function"}
    if not config.pattern_matcher or aten.bmm.default not in targets or not targets & _SUMS:
        return 0
    with undone_on_error(graph):
        remove_noop_ops(graph)
        found = int(_patterns(device).apply(graph))
        if found:
            stable_topological_sort(graph)
            graph.lint()
    return found


_SUMS = {aten.sum.dim_IntList, aten._softmax.default}
"""What a softmax has."""


@functools.cache
def _patterns(device: torch.device) -> PatternMatcherPass:
    """Inductor's patterns of attention on ``device``, without the others that it applies along with them."""
    found = PatternMatcherPass()
    for name, given in _get_sfdp_patterns(device):
        gen_register_replacement(name, **{**given, "pass_dicts": found})
    return found
