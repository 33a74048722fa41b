"""``options={"freezing": True}`` that freezes.

Stock Inductor reads the global ``torch._inductor.config.freezing`` while Dynamo traces, so the option alone does
nothing there (torch 2.14.1). Here the backend itself turns weights into attributes of the graph's module and adds
Dynamo guards on the modules that own them, and one on the identity, forms, versions and addresses of all, so that a
weight that is replaced, changed in place or put elsewhere recompiles. Stock freezing goes on with the old values then.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._dynamo.guards import GuardBuilder
from torch._dynamo.source import (
    AttrSource,
    CallFunctionNoArgsSource,
    DictGetItemSource,
    UnspecializedParamBufferSource,
    is_from_unspecialized_nn_module_source,
)
from torch._dynamo.symbolic_convert import InstructionTranslator
from torch._guards import GuardsSet, TracingContext
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Graph, GraphModule
from torch.fx import Node as FxNode
from torch.nn import Parameter

from torch_eqsat.errors import first_line
from torch_eqsat.graph.calls import is_loop
from torch_eqsat.planning.inductor.versions import (
    NOTE,
    count_fused_steps,
    count_move,
    count_replacement,
    has_memory,
    keeps_changing,
    note_constant,
    note_of,
    note_place,
)
from torch_eqsat.planning.inductor.watching import Place, Watch, can_watch

logger = logging.getLogger(__name__)

_HELD = "grapharg"
"""Metadata by which Dynamo refers to an input until it is compiled."""


def is_weight(node: FxNode, value: Any) -> bool:
    """Whether Dynamo marked this placeholder as a parameter or buffer, and its value is at hand."""
    # mark_static_address marks any input in the same way; only what a module owns is a weight.
    source = getattr(node, "_dynamo_source", None)
    if source is None or not is_from_unspecialized_nn_module_source(source):
        return False
    static = node.meta.get("tensor_dict", {}).get("_dynamo_static_input_type")
    return bool(static) and isinstance(value, torch.Tensor) and not isinstance(value, FakeTensor)


@dataclass
class Lifting:
    """Weights made attributes of ``module``: the ``inputs`` that remain, and what :meth:`put_back` needs."""

    module: GraphModule
    inputs: list[Any]
    names: list[str] = field(default_factory=list)
    _backup: Graph | None = None
    _sources: list[Any] = field(default_factory=list)

    def release(self) -> None:
        """Forget the weights as inputs, as Dynamo does with those that it still knows. Until then it refers to them
        weakly, and what is referred to so cannot be swapped (`torch.utils.swap_tensors`)."""
        for node in self._backup.find_nodes(op="placeholder") if self._backup is not None else ():
            if (held := node.meta.get(_HELD)) is not None:
                held.erase()

    def put_back(self) -> None:
        """Make the weights inputs again."""
        if self._backup is None:
            return
        graph, context = self.module.graph, TracingContext.try_get()
        assert context is not None, "weights were lifted in a tracing context"
        for node in reversed(list(graph.nodes)):
            graph.erase_node(node)
        graph.output(graph.graph_copy(self._backup, {}))
        for node, source in zip(graph.find_nodes(op="placeholder"), self._sources, strict=True):
            node._dynamo_source = source
        for name in self.names:
            delattr(self.module, name)
            self.module._param_name_to_source.pop(name)
        self.module.recompile()


def lift_weights(module: GraphModule, inputs: Sequence[Any]) -> Lifting | None:
    """Make the weights among the placeholders attributes of ``module``, in place, but for those that loops read.

    None, with nothing changed, when Dynamo's private interfaces are not as expected. Without weights nothing has to
    change: what is made of constants alone is frozen all the same.
    """
    placeholders = module.graph.find_nodes(op="placeholder")
    if len(placeholders) != len(inputs):
        return None
    weights = [(n, v) for n, v in zip(placeholders, inputs, strict=True) if is_weight(n, v)]
    for node, weight in weights:
        count_move(weight)
        if place := _place_of_module(getattr(node, "_dynamo_source", None), weight):
            count_replacement(place.owner(), place.table, place.key, weight)
    in_loops = _read_by_loops(module.graph, {n for n, _ in weights})
    weights = [(n, v) for n, v in weights if n not in in_loops and not keeps_changing(v)]
    context = TracingContext.try_get()
    sources = getattr(module, "_param_name_to_source", None)
    if not weights:
        return Lifting(module, list(inputs))
    if context is None or sources is None or any(not hasattr(n, "_dynamo_source") for n, _ in weights):
        logger.warning("weights cannot be frozen here; compiled without freezing")
        return None
    if not can_watch("compiled without freezing"):
        return None
    backup = Graph()
    backup.output(backup.graph_copy(module.graph, {}))
    frozen = {node for node, _ in weights}
    lifting = Lifting(module, [v for n, v in zip(placeholders, inputs, strict=True) if n not in frozen])
    lifting._backup, lifting._sources = backup, [getattr(n, "_dynamo_source", None) for n in placeholders]
    lifting.names = [_make_attribute(module, node, value, sources) for node, value in weights]
    module.recompile()
    return lifting


def watch_weights(module: GraphModule, *, values: bool = False) -> None:
    """Have Dynamo compile again once a weight is changed that is a constant of the compiled ``module``: guards on the
    identity of the modules that own them, and one on how all weights stand, in place of Dynamo's own on each.

    Weights that stay inputs are read anew in each call: those that the graph writes into, and those that changed
    :data:`~torch_eqsat.planning.inductor.versions.MOST_CHANGES` times while they were constants, as a counter of steps
    does. Of what is written through ``.data``, and into inference tensors, which have no counter, only changes of the
    middle element of a weight are seen, unless ``values`` are compared."""
    count_fused_steps()
    context, sources = TracingContext.try_get(), getattr(module, "_param_name_to_source", None)
    if context is None or not sources:
        return
    inputs = {id(weight) for weight in context.params_flat or () if weight is not None}
    weights = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers())}
    constants = {sources[n]: w for n, w in weights.items() if n in sources and id(w) not in inputs}
    if not constants or not can_watch("as with Inductor's own freezing, changes are not seen"):
        return
    for weight in constants.values():
        note_constant(weight, values=values)
    guards = context.guards_context.dynamo_guards
    places = [(_place(source, weight, guards), weight) for source, weight in constants.items()]
    watch, first = Watch(places, values=values), next(iter(constants))
    # Where a call writes into its inputs, Dynamo's own guards see that no buffer is among them.
    known = context.fw_metadata
    writes = known is None or any(given.mutates_data for given in known.input_info)
    seen = {s for s, w in constants.items() if has_memory(w) and (isinstance(w, Parameter) or not writes)}
    for guard in [g for g in guards if g.create_fn_name() == "TENSOR_MATCH" and g.originating_source in seen]:
        guards.inner.discard(guard)
    check = AttrSource(AttrSource(AttrSource(first, NOTE), "checks"), watch.name_on(constants[first]))
    guards.add(CallFunctionNoArgsSource(check).make_guard(GuardBuilder.EQUALS_MATCH))


def _place(source: Any, weight: torch.Tensor, guards: GuardsSet) -> Place:
    """Where ``weight`` is found in later calls, if ``guards`` hold, which get one on the identity of its owner."""
    # Of what has no memory nothing but its identity is compared.
    place = _place_of_module(source, weight) if has_memory(weight) else None
    if place is not None:
        guards.add(source.base.base.make_guard(GuardBuilder.ID_MATCH))
        note_place(place.owner(), place.table, place.key, weight)
        return place
    note = note_of(weight)
    note.held["weight"] = weight
    guards.add(AttrSource(source, NOTE).make_guard(GuardBuilder.ID_MATCH))
    return Place(weakref.ref(note), "held", "weight")


def _place_of_module(source: Any, weight: torch.Tensor) -> Place | None:
    """Where ``weight`` lies in a module, if Dynamo came to it by one."""
    table = source.base if isinstance(source, DictGetItemSource) else None
    if not isinstance(table, UnspecializedParamBufferSource):
        return None
    try:
        owner = InstructionTranslator.current_tx().output.resolve_source_value(table.base)
        place = Place(weakref.ref(owner), table.member, source.index)
        return place if place.weight() is weight else None
    except Exception as error:  # whatever the way to a module that Dynamo went may raise
        logger.debug("%s is watched by itself: %s", source.name, first_line(error))
        return None


def let_go(compiled: Callable[..., Any]) -> None:
    """Have a callable of AOTAutograd not keep the module that it was made of, and with it the weights: they stayed in
    memory when the user had deleted the model (torch 2.14.1)."""
    function: Any = compiled
    while function is not None:
        own = getattr(function, "__dict__", {})
        for name in ("zero_grad", "named_parameters", "named_buffers"):
            own.pop(name, None)
        function = own.get("_torchdynamo_orig_callable") or own.get("__wrapped__")


def _read_by_loops(graph: Graph, weights: set[FxNode]) -> set[FxNode]:
    """The weights that reach a loop with nothing but constants on the way. Inductor takes numbers among a loop's
    operands for something that has a name, and a carry that is a constant may be written to."""
    behind: dict[FxNode, set[FxNode]] = {}  # the weights that a node is made of, if it is made of constants alone
    found: set[FxNode] = set()
    for node in graph.nodes:
        if node in weights:
            behind[node] = {node}
        elif is_loop(node):
            found.update(*(behind[n] for n in node.all_input_nodes if n in behind))
        elif node.op == "get_attr" or (node.op != "placeholder" and all(n in behind for n in node.all_input_nodes)):
            behind[node] = set().union(*(behind[n] for n in node.all_input_nodes))
    return found


def _make_attribute(module: GraphModule, node: FxNode, value: torch.Tensor, sources: dict[str, Any]) -> str:
    """Have an attribute stand for the placeholder ``node``; its name."""
    source: Any = node._dynamo_source
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
    return name
