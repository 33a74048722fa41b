"""Attention that is written out, fused before the capture as Inductor fuses it behind our pass.

Inductor's patterns match the calls of a forward as they were written. A rewritten graph has others around the scores
and loses the fused kernel, which no price of the original knew of: frozen layers of attention over 2,048 tokens took
twice as long as without a rewrite. So its passes over joint graphs run once before ours, on a copy, in the same order
and with the same checks. If they fuse attention, the copy is what is captured, and the e-graph holds the fused
operator.
"""

from __future__ import annotations

from torch._dynamo.utils import counters
from torch._inductor import config
from torch._inductor.fx_passes.joint_graph import joint_graph_passes
from torch.fx import Graph

from torch_eqsat.graph.copies import become, copy_of
from torch_eqsat.graph.emitter import aten

PRODUCTS = {aten.bmm.default, aten.baddbmm.default}
SUMS = {aten.sum.dim_IntList, aten._softmax.default}
"""Attention has two products, and a softmax between them."""

# What is not about attention, and is better done behind our pass: passes of others, and matrices filled up to a
# multiple of a size.
_OTHERS = {
    "joint_custom_pre_pass": None,
    "joint_custom_post_pass": None,
    "shape_padding": False,
    "auto_chunker.enable": False,
}


def fuse_attention(graph: Graph) -> int:
    """Fuse the attention in ``graph`` that Inductor would fuse, in place; how often. Without any, it stays as it is."""
    targets = [n.target for n in graph.nodes if n.op == "call_function"] if config.pattern_matcher else []
    if sum(target in PRODUCTS for target in targets) < 2 or SUMS.isdisjoint(targets):
        return 0
    copy = copy_of(graph)
    before = counters["inductor"]["fuse_attention"]
    with config.patch(_OTHERS):
        joint_graph_passes(copy.owning_module)
    found = int(counters["inductor"]["fuse_attention"] - before)
    if found:
        become(graph, copy)
    return found
