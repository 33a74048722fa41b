"""Runs a captured graph eagerly, in its own dtypes or in double precision, for the judge.

Calls that the language cannot rewrite and that are costly, random or have effects are not run again and again: their
values are recorded in one run and put in in all others, of the original and of the rewritten graph; what they are given
is compared then, as outputs are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Interpreter
from torch.fx import Node as FxNode
from torch.utils._pytree import tree_flatten, tree_map_only

from torch_eqsat.graph.aten.deciding import is_choice
from torch_eqsat.graph.calls import GETITEM, VIEWS, is_arithmetic, is_pinned, operands_of, written_inputs
from torch_eqsat.graph.emitter import aten
from torch_eqsat.graph.whole import NAMESPACE

EXACT_NUMBER = "eqsat_number"
"""Metadata of a constant that a law made: the number that all its elements are, not rounded to its dtype."""
STANDS_FOR = "eqsat_stands_for"
"""Metadata of a call that was repeated on other operands: the name of the captured one."""
OWN_NAMESPACES = ("aten", "prims", NAMESPACE)
MOST_DERIVED = 512 << 20  # bytes of what is derived from weights, for one graph in one precision
WIDE = {torch.complex64: torch.complex128, torch.complex32: torch.complex128}


@dataclass
class Recording:
    """What recorded calls return, by the name of the captured node. ``made_up`` makes values for calls of operators
    that are not torch's own in place of running them: nobody knows what those do besides. With ``choices`` also calls
    that choose are recorded."""

    made_up: Callable[[Any, str], Any] | None
    choices: bool = False
    values: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """What a graph computed: its outputs, flat, by name the inputs that it wrote into, and what recorded calls were
    given."""

    outputs: list[Any]
    written: dict[str, Any]
    operands: dict[str, list[Any]]


def name_of(node: FxNode) -> str:
    """The name of a call in the captured graph."""
    return str(node.meta.get(STANDS_FOR, node.name))


def _is_recorded(node: FxNode, choices: bool) -> bool:
    """Whether a call is run once and its values put in elsewhere."""
    if node.op != "call_function" or node.target is GETITEM:
        return False
    if choices and is_choice(node):
        return True
    return is_foreign(node) or (is_pinned(node) and not node.target._schema.is_mutable)


def is_foreign(node: FxNode) -> bool:
    """Whether the operator is not one of torch's own or of Python's: a custom one, or one of another library."""
    if is_arithmetic(node):
        return False
    return not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace not in OWN_NAMESPACES


class Derived:
    """The results of calls on ``fixed`` inputs alone, which all runs of a graph in one precision share: the filters of
    Winograd's convolutions are made of weights, which took half of a run of resnet18.

    ``calls`` are all such calls, ``values`` the results that others read, once a run is through.
    """

    def __init__(self, graph: Graph, fixed: Collection[int]) -> None:
        written = written_inputs(graph)
        known = {n for i, n in enumerate(graph.find_nodes(op="placeholder")) if i in fixed and n not in written}
        self.calls: set[FxNode] = set()
        for node in graph.nodes:
            sources = node.all_input_nodes
            if node.op == "get_attr":
                known.add(node)
            elif sources and not _is_recorded(node, True) and not is_pinned(node) and known.issuperset(sources):
                known.add(node)
                if not (_is_view(node) and self.calls.isdisjoint(sources)):  # a view of a weight costs nothing
                    self.calls.add(node)
        self.read = {node for node in self.calls if not self.calls.issuperset(node.users)}
        self.values: dict[FxNode, Any] = {}
        self._room = MOST_DERIVED

    def known(self) -> dict[FxNode, Any]:
        """What a run need not compute: nothing before one is through, or if there was no room for all."""
        return {node: self.values.get(node) for node in self.calls} if self.read == self.values.keys() else {}

    def keep(self, node: FxNode, value: Any) -> None:
        """Note a result."""
        if node in self.read and self._room > 0 and node not in self.values:
            self.values[node] = value
            tensors = [v for v in tree_flatten(value)[0] if isinstance(v, torch.Tensor)]
            self._room -= sum(v.numel() * v.element_size() for v in tensors)
            if self._room <= 0:
                self.values = {}


def run(
    module: GraphModule,
    inputs: Sequence[Any],
    recording: Recording,
    *,
    in_double: bool,
    noise: int | None = None,
    derived: Derived | None = None,
) -> Run:
    """Run ``module`` on copies of ``inputs``. With the seed of a ``noise`` each floating result is off by a rounding
    error of its own size, so that results show what rounding may do to them (as in D. S. Parker, Monte Carlo
    Arithmetic, 1997). What is ``derived`` from inputs that stay the same is not computed again. Raises what its calls
    raise."""
    values = [_copy(value, in_double) for value in inputs]
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(0)
        interpreter = _Replay(module, recording, in_double, noise, derived)
        outputs = interpreter.run(*values, initial_env=derived.known() if derived else None)
    names = [node.name for node in module.graph.find_nodes(op="placeholder")]
    after = dict(zip(names, values, strict=True))
    written = {node.name: after[node.name] for node in written_inputs(module.graph)}
    return Run(tree_flatten(outputs)[0], written, interpreter.operands)


def _copy(value: Any, in_double: bool) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach().clone()  # a copy in any case: graphs may write into their inputs
    return widened(value) if in_double else value


def widened(value: torch.Tensor) -> torch.Tensor:
    """``value`` in double precision; integers as they are."""
    if value.is_floating_point():
        return value.double()
    return value.to(WIDE[value.dtype]) if value.dtype in WIDE else value


class _Replay(Interpreter):
    def __init__(
        self, module: GraphModule, recording: Recording, in_double: bool, noise: int | None, derived: Derived | None
    ) -> None:
        super().__init__(module)
        self.recording, self.in_double, self.derived = recording, in_double, derived
        self.noise = None if noise is None else torch.Generator().manual_seed(noise)
        self.operands: dict[str, list[Any]] = {}

    def run_node(self, n: FxNode) -> Any:
        result = self._run(n)
        if self.derived is not None:
            self.derived.keep(n, result)
        exact = n.op != "call_function" or _is_view(n) or n.target is GETITEM
        return result if exact or self.noise is None else tree_map_only(torch.Tensor, self._rounded, result)

    def _rounded(self, value: torch.Tensor) -> torch.Tensor:
        if not value.is_floating_point() or self.noise is None:
            return value
        factor = torch.rand(value.shape, generator=self.noise, dtype=value.dtype).to(value.device) * 2 - 1
        return value * (1 + torch.finfo(value.dtype).eps * factor)

    def _run(self, n: FxNode) -> Any:
        if _is_recorded(n, self.recording.choices):
            return self._recorded(n)
        if n.op == "get_attr":
            return self._attribute(n)
        if n.op != "call_function" or not self.in_double:
            return super().run_node(n)
        if n.target is aten.view.dtype:  # the bits are of the tensor's own dtype
            return self._in_own_dtypes(n)
        args, kwargs = tree_map_only(torch.dtype, _wide_dtype, self.fetch_args_kwargs_from_env(n))
        try:
            result = n.target(*args, **kwargs)
            # Factories make their default dtype.
            return result if n.all_input_nodes else tree_map_only(torch.Tensor, widened, result)
        except (RuntimeError, NotImplementedError, TypeError, ValueError):  # no kernel for double precision
            return self._in_own_dtypes(n)

    def _attribute(self, n: FxNode) -> Any:
        value = super().run_node(n)
        if not self.in_double or not isinstance(value, torch.Tensor):
            return value
        if EXACT_NUMBER in n.meta and value.is_floating_point():
            return torch.full_like(value, n.meta[EXACT_NUMBER], dtype=torch.float64)
        return widened(value)

    def _recorded(self, n: FxNode) -> Any:
        name = name_of(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        given = [v for v in tree_flatten((args, kwargs))[0] if isinstance(v, torch.Tensor)]
        self.operands[name] = [v.clone() for v in given]
        if name not in self.recording.values:
            made_up = self.recording.made_up if is_foreign(n) else None
            result = made_up(n.meta["val"], name) if made_up and "val" in n.meta else self._in_own_dtypes(n)
            narrowed = _as_captured(result, n.meta.get("val"))
            self.recording.values[name] = narrowed
        result = tree_map_only(torch.Tensor, torch.clone, self.recording.values[name])
        return tree_map_only(torch.Tensor, widened, result) if self.in_double else result

    def _in_own_dtypes(self, n: FxNode) -> Any:
        """The call on operands of the dtypes that it was captured with."""
        operands = {node: self.env[node] for node in operands_of(n)}
        own = {node: _as_captured(value, node.meta.get("val")) for node, value in operands.items()}
        args, kwargs = torch.fx.map_arg((n.args, n.kwargs), own.__getitem__)
        result = n.target(*args, **kwargs)
        return tree_map_only(torch.Tensor, widened, result) if self.in_double else result


def _is_view(node: FxNode) -> bool:
    return getattr(node.target, "overloadpacket", None) in VIEWS


def _wide_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype.is_floating_point else WIDE.get(dtype, dtype)


def _as_captured(value: Any, captured: Any) -> Any:
    """``value`` with each tensor in the dtype that it has in the captured graph."""
    flat, spec = tree_flatten(value)
    fakes, _ = tree_flatten(captured)
    if len(flat) != len(fakes):
        return value
    cast = [
        v.to(f.dtype) if isinstance(v, torch.Tensor) and isinstance(f, torch.Tensor) else v
        for v, f in zip(flat, fakes, strict=True)
    ]
    return torch.utils._pytree.tree_unflatten(cast, spec)


def fits_in_memory(graph: Graph) -> bool:
    """Whether twice the inputs, in float64 and in float32, fit into the free memory of the CPU."""
    if "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return True
    values = [n.meta.get("val") for n in graph.find_nodes(op="placeholder")]
    sizes = [n if type(n) is int else n.node.hint for v in values if isinstance(v, torch.Tensor) for n in [v.numel()]]
    needed = 2 * sum(sizes) * (8 + 4)
    return needed < os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
