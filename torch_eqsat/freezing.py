"""``options={"freezing": True}`` that freezes.

Stock Inductor reads the global ``torch._inductor.config.freezing`` while Dynamo traces, so the option alone does
nothing there (torch 2.14.1). Here the backend itself turns weights into attributes of the graph's module and adds
Dynamo guards on their identity, so that a replaced parameter recompiles. A weight changed in place is not seen, as
with stock freezing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch._dynamo.guards import GuardBuilder
from torch._dynamo.source import is_from_unspecialized_nn_module_source
from torch._guards import TracingContext
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule
from torch.fx import Node as FxNode

logger = logging.getLogger(__name__)


def is_weight(node: FxNode, value: Any) -> bool:
    """Whether Dynamo marked this placeholder as a parameter or buffer, and its value is at hand."""
    # mark_static_address marks any input in the same way; only what a module owns is a weight.
    source = getattr(node, "_dynamo_source", None)
    if source is None or not is_from_unspecialized_nn_module_source(source):
        return False
    static = node.meta.get("tensor_dict", {}).get("_dynamo_static_input_type")
    return bool(static) and isinstance(value, torch.Tensor) and not isinstance(value, FakeTensor)


def lift_weights(module: GraphModule, inputs: Sequence[Any]) -> list[Any] | None:
    """Make the weights among the placeholders attributes of ``module``, in place; the inputs that remain.

    None, with nothing changed, when Dynamo's private interfaces are not as expected. Without weights nothing has to
    change: what is made of constants alone is frozen all the same.
    """
    placeholders = module.graph.find_nodes(op="placeholder")
    if len(placeholders) != len(inputs):
        return None
    weights = [(n, v) for n, v in zip(placeholders, inputs, strict=True) if is_weight(n, v)]
    context = TracingContext.try_get()
    sources = getattr(module, "_param_name_to_source", None)
    if not weights:
        return list(inputs)
    if context is None or sources is None or any(not hasattr(n, "_dynamo_source") for n, _ in weights):
        logger.warning("weights cannot be frozen here; compiled without freezing")
        return None
    _drop_tensor_guards(context, {node._dynamo_source for node, _ in weights})
    for node, value in weights:
        _make_attribute(module, node, value, context, sources)
    module.recompile()
    frozen = {node for node, _ in weights}
    return [v for n, v in zip(placeholders, inputs, strict=True) if n not in frozen]


def _drop_tensor_guards(context: TracingContext, sources: set[Any]) -> None:
    """Leave to the identity guards what stock freezing leaves to them: a guard on the shape and dtype of each weight as
    well took 0.23 ms a call for 1,100 weights, 3 % of the model."""
    guards = context.guards_context.dynamo_guards
    kept = [g for g in guards if not (g.originating_source in sources and g.create_fn_name() == "TENSOR_MATCH")]
    guards.clear()
    for guard in kept:
        guards.add(guard, collect_debug_stack=False)


def _make_attribute(
    module: GraphModule, node: FxNode, value: torch.Tensor, context: TracingContext, sources: dict[str, Any]
) -> None:
    source: Any = node._dynamo_source
    context.guards_context.dynamo_guards.add(source.make_guard(GuardBuilder.ID_MATCH))
    name = f"_eqsat_{node.name}"
    if isinstance(value, torch.nn.Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, value)
    with module.graph.inserting_before(node):
        attribute = module.graph.get_attr(name)
    attribute.meta = dict(node.meta)
    node.replace_all_uses_with(attribute)
    module.graph.erase_node(node)
    sources[name] = source
