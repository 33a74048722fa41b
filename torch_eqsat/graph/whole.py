"""Banks of filters as calls of their own in frozen graphs, taken apart once Inductor has frozen the graph.

A bank is a hundred calls of ATen. Of resnet18, whose convolutions became Winograd's, 26 banks were 1,800 of 1,875
nodes, and freezing looks at each node some thirty times: 6 of the 7.8 s that a start took whose code was cached.
Taking them apart comes after that cache is asked, so that a start from the cache never does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch.fx import Graph
from torch.fx import Node as FxNode

from torch_eqsat.graph.emitter import Value, aten, shape_of

NAMESPACE = "torch_eqsat"
Make = Callable[..., Value]
"""Makes a call: runs it, or adds it to a graph."""

_LIBRARY = torch.library.Library(NAMESPACE, "DEF")
_LIBRARY.define(
    "filter_bank(Tensor x, int dim, int into, int step, int dilation, float[] coefficients, int filters) -> Tensor"
)


def filter_bank(
    call: Make, x: Value, dim: int, into: int, step: int, dilation: int, coefficients: Sequence[float], filters: int
) -> Value:
    """The calls that a bank of ``filters`` filters is made of; ``coefficients`` are those of all filters, in order."""
    taps = len(coefficients) // filters
    starts = [dilation * k for k in range(taps)]
    reach = (shape_of(x)[dim] - starts[-1] - 1) // step * step + 1
    inputs = [call(aten.slice.Tensor, x, dim, start, start + reach, step) for start in starts]
    rows = [coefficients[k * taps : (k + 1) * taps] for k in range(filters)]
    return call(aten.cat.default, [_combination(call, row, inputs) for row in rows], into)


def _combination(call: Make, coefficients: Sequence[float], inputs: Sequence[Value]) -> Value:
    """Σ coefficient · input; a coefficient that is not zero is there by the operator's type rule."""
    total: Value = None
    for coefficient, x in zip(coefficients, inputs, strict=True):
        if coefficient == 0:
            continue
        term = x if coefficient == 1 else call(aten.mul.Tensor, x, coefficient)
        total = term if total is None else call(aten.add.Tensor, total, term)
    return total


def _run(x: Tensor, *arguments: Any) -> Tensor:
    result = filter_bank(lambda target, *args: target(*args), x, *arguments)
    assert isinstance(result, Tensor)
    return result


@lru_cache(maxsize=4096)
def _laid(run: Callable[..., Tensor], *arguments: Any) -> tuple[Sequence[int], Sequence[int]]:
    """The size and strides of a result, as its calls make them: what reads it by addresses was planned for those."""

    def meta(argument: Any) -> Any:
        if isinstance(argument, _Form):
            return torch.empty_strided(argument.shape, argument.stride, device="meta")
        return list(map(meta, argument)) if isinstance(argument, tuple) else argument

    y = run(*map(meta, arguments))
    return y.shape, y.stride()


class _Form(NamedTuple):
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def planned(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What ``run`` does with tensors, for shapes without values: the same size and strides."""

    def form(argument: Any) -> Any:
        if isinstance(argument, Tensor):
            return _Form(tuple(argument.shape), argument.stride())
        return tuple(map(form, argument)) if isinstance(argument, (list, tuple)) else argument

    def fake(x: Tensor, *arguments: Any) -> Tensor:
        if any(isinstance(n, torch.SymInt) for n in (*x.shape, *x.stride())):
            return run(x, *arguments)
        return x.new_empty_strided(*_laid(run, form(x), *map(form, arguments)))

    return fake


_LIBRARY.impl("filter_bank", _run, "CompositeExplicitAutograd")
torch.library.register_fake(f"{NAMESPACE}::filter_bank", planned(_run), lib=_LIBRARY)
FILTER_BANK = torch.ops.torch_eqsat.filter_bank.default


class TakeApart(CustomGraphPass):
    """Inductor's pass that takes banks apart, but for those that ``use_kernels`` puts something better in the place of;
    ``uuid`` tells Inductor's caches which version of it did so."""

    def __init__(self, version: str, use_kernels: Callable[[Graph], None]) -> None:
        self._version = version
        self._use_kernels = use_kernels

    def uuid(self) -> str:
        return self._version

    def __call__(self, graph: Graph) -> None:
        self._use_kernels(graph)
        for node in list(graph.find_nodes(op="call_function", target=FILTER_BANK)):
            made: dict[str, FxNode] = {}

            def call(target: Any, *args: Any, node: FxNode = node, made: dict[str, FxNode] = made) -> FxNode:
                key = f"{target} {args}"
                if key not in made:
                    made[key] = _added(graph, node, target, args)
                return made[key]

            result = filter_bank(call, *node.args)
            result.meta = {**node.meta, "val": result.meta["val"]}
            node.replace_all_uses_with(result)
            graph.erase_node(node)


def _added(graph: Graph, before: FxNode, target: Any, args: Sequence[Any]) -> FxNode:
    values = torch.fx.map_arg(args, lambda n: n.meta["val"])
    with torch._guards.detect_fake_mode([before.meta["val"]]):
        value = target(*values)
    with graph.inserting_before(before):
        node = graph.call_function(target, tuple(args))
    node.meta["val"] = value
    return node
