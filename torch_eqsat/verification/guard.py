"""``eqsat.guard`` compares the first calls of a compiled graph with eager and replaces the graph if they differ.

The results of the compiled callable, after Inductor, are compared with those of the graph that Dynamo captured, run
eagerly in float64 and in its own dtypes. If they differ, stock Inductor compiles the graph. If its results differ too,
the graph runs eagerly from then on. The call that found the difference returns the right answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor.compile_fx import compile_fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Graph, GraphModule
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from torch_eqsat.counters import COUNTERS
from torch_eqsat.errors import first_line

logger = logging.getLogger(__name__)

# Tolerance for an element, relative to the largest element of its tensor, in addition to a multiple of eager's own
# error.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
ERROR_MULTIPLE = 4.0
WIDER = dict.fromkeys((torch.float32, torch.float16, torch.bfloat16), torch.float64)
WIDER |= {torch.complex64: torch.complex128, torch.complex32: torch.complex128}
# Operators of these namespaces declare their effects. Others may log or count, and must not run twice.
NAMESPACES = frozenset({"aten", "prims", "prim", "inductor", "quantized", "mkldnn", "mkl", "onednn", "torchvision"})
EFFECTS = frozenset({"print", "call_torchbind", "with_effects"})


class Reference:
    """A copy of a Dynamo graph that later changes by compilers do not affect. It does not keep the inputs alive."""

    def __init__(self, module: GraphModule) -> None:
        self.module = _copied(module)
        self.names = [str(node.target) for node in self.module.graph.find_nodes(op="get_attr")]
        self.names = [name for name in dict.fromkeys(self.names) if isinstance(self._attribute(name), Tensor)]

    def _attribute(self, name: str) -> Any:
        return getattr(self.module, name, None)

    def tensors(self, inputs: Sequence[Any]) -> list[Any]:
        """All tensors that the graph may read or write: its inputs and the tensors of its module."""
        return [*inputs, *map(self._attribute, self.names)]

    def run(self, tensors: Sequence[Any]) -> list[Any]:
        """The flat outputs for ``tensors`` in place of the graph's own (see :meth:`tensors`)."""
        count = len(tensors) - len(self.names)
        root = {str(n.target): self._attribute(str(n.target)) for n in self.module.graph.find_nodes(op="get_attr")}
        root.update(zip(self.names, tensors[count:], strict=True))
        with torch.no_grad():
            return list(tree_leaves(GraphModule(root, self.module.graph)(*tensors[:count])))

    def effects(self) -> str:
        """The name of a call that may have side effects; "" if there is none."""
        return next(_effects(self.module), "")


def _copied(module: GraphModule) -> GraphModule:
    graph = Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    root = {}
    for node in graph.nodes:
        node.meta = {}
        if node.op in ("get_attr", "call_module"):
            value = module.get_submodule(node.target) if node.op == "call_module" else getattr(module, node.target)
            root[node.target] = _copied(value) if isinstance(value, GraphModule) else value
    return GraphModule(root, graph)


def _effects(module: GraphModule) -> Iterator[str]:
    for inner in module.modules():
        for node in inner.graph.nodes if isinstance(inner, GraphModule) else ():
            if isinstance(node.target, torch._ops.HigherOrderOperator) and node.target.name() in EFFECTS:
                yield node.target.name()
            elif isinstance(node.target, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
                name = str(getattr(node.target, "overloadpacket", node.target)._qualified_op_name)
                if name.partition("::")[0] not in NAMESPACES:
                    yield name


class InDouble(TorchDispatchMode):
    """Computes in float64 what would be computed in a shorter floating dtype."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(widened, (args, kwargs or {}))
        return tree_map(widened, func(*args, **kwargs))


def widened(value: Any) -> Any:
    """A tensor or dtype in double precision if it is a shorter floating one; other values unchanged."""
    if isinstance(value, Tensor) and value.dtype in WIDER:
        return value.to(WIDER[value.dtype])
    return WIDER.get(value, value) if isinstance(value, torch.dtype) else value


def compile_alone(module: GraphModule, patches: dict[str, Any]) -> Callable[..., Any]:
    """``module`` compiled by stock Inductor with the settings ``patches``, through Dynamo again for its guards."""

    def backend(graph: GraphModule, inputs: Sequence[Any]) -> Any:
        return compile_fx(graph, inputs, config_patches={**patches, "freezing": False, "force_disable_caches": True})

    return torch.compile(module, backend=backend)  # type: ignore[no-any-return]


def guarded(
    compiled: Callable[..., Any], reference: Reference, calls: int, blame: Callable[[], str], patches: dict[str, Any]
) -> Callable[..., Any]:
    """``compiled``, whose first ``calls`` calls are compared with ``reference``. ``blame`` returns one line on the
    likely cause of a difference; ``patches`` are Inductor's settings."""

    def stock(module: GraphModule) -> Callable[..., Any]:
        return compile_alone(module, patches)

    guard = Guard(compiled, reference, calls, blame, stock)

    def call(*inputs: Any) -> Any:
        return guard(*inputs)

    return call


@dataclass
class Guard:
    """Compares the first ``calls`` calls of ``compiled`` with ``reference``. ``blame`` returns one line on the likely
    cause of a difference; ``stock`` compiles a module without our pass."""

    compiled: Callable[..., Any]
    reference: Reference
    calls: int
    blame: Callable[[], str]
    stock: Callable[[GraphModule], Callable[..., Any]]

    def __call__(self, *inputs: Any) -> Any:
        """The results for ``inputs``, checked while calls to compare are left."""
        if self.calls and (reason := self._unfit(inputs)):
            self._stop(reason)
        if not self.calls:
            return self.compiled(*inputs)
        tensors = self.reference.tensors(inputs)
        before = [x.detach().clone() if isinstance(x, Tensor) else x for x in tensors]
        try:
            expected = self._expected(before, _share_memory(tensors))
        except Exception as error:
            expected = f"eager fails ({first_line(error)})"
        if isinstance(expected, str):
            self._stop(expected)
            return self.compiled(*inputs)
        return self._checked(inputs, tensors, before, expected)

    def _unfit(self, inputs: Sequence[Any]) -> str:
        """Why these inputs cannot be run twice; "" if they can."""
        if any(isinstance(x, FakeTensor) or (isinstance(x, Tensor) and x.layout != torch.strided) for x in inputs):
            return "its inputs are not plain tensors"
        effects = self.reference.effects()
        return f"{effects} may have side effects, and would run twice" if effects else ""

    def _stop(self, reason: str) -> None:
        logger.warning("guard: a graph is not compared with eager: %s", reason)
        self.calls = 0

    def _expected(self, before: Sequence[Any], shared: bool) -> list[tuple[Any, Any]] | str:
        """The reference's outputs, then its inputs after the call, each in float64 (None if that fails) and in its own
        dtype; or the reason why they cannot be computed."""
        own = [x.clone() if isinstance(x, Tensor) else x for x in before]
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()):
            state = torch.get_rng_state()
            results = [*self.reference.run(own), *own]
            if not torch.equal(state, torch.get_rng_state()):
                return "it draws random numbers"
        if shared and any(_differ(a, b) for a, b in zip(own, before, strict=True)):
            return "it writes to inputs that share memory"
        try:
            wide = [widened(x.clone()) if isinstance(x, Tensor) else x for x in before]
            with InDouble():
                exact = [*self.reference.run(wide), *wide]
        except Exception:  # a kernel that exists for one dtype only, a view of bits
            exact = [None] * len(results)
        return list(zip(exact, results, strict=True))

    def _checked(
        self, inputs: Sequence[Any], tensors: Sequence[Any], before: Sequence[Any], expected: list[tuple[Any, Any]]
    ) -> Any:
        """The first right result: of the compiled graph, of stock Inductor's code, or of eager."""
        for what, then in (
            ("the compiled graph", "it is compiled by Inductor alone"),
            ("Inductor's own code", "it runs eagerly"),
        ):
            run = self.compiled if what == "the compiled graph" else self.stock(self.reference.module)
            problem = self._problem(run, inputs, tensors, expected)
            if not isinstance(problem, str):
                (result,) = problem
                self.compiled, self.calls = run, self.calls - 1
                return result
            counters[COUNTERS]["guard_mismatches"] += 1
            logger.warning("guard: %s is wrong: %s; %s; %s from now on", what, problem, self.blame(), then)
            with torch.no_grad():
                for now, then_ in zip(tensors, before, strict=True):
                    if isinstance(now, Tensor) and _differ(now, then_):
                        now.copy_(then_)
        self.compiled, self.calls = self.reference.module, 0
        return self.compiled(*inputs)

    @staticmethod
    def _problem(
        run: Callable[..., Any], inputs: Sequence[Any], tensors: Sequence[Any], expected: list[tuple[Any, Any]]
    ) -> str | tuple[Any]:
        """The difference of the results of ``run`` in one line, or the results in a tuple."""
        try:
            result = run(*inputs)
        except Exception as error:
            return first_line(error)
        actual = [*tree_leaves(result), *tensors]
        outputs = len(actual) - len(tensors)
        for number, (found, (exact, eager)) in enumerate(zip(actual, expected, strict=True)):
            if problem := difference(found, exact, eager):
                name = f"output {number}" if number < outputs else f"input {number - outputs} after the call"
                return f"{name} {problem}"
        return (result,)


def _differ(a: Any, b: Any) -> bool:
    return isinstance(a, Tensor) and not torch.equal(a.detach().nan_to_num(), b.nan_to_num())


def _share_memory(tensors: Sequence[Any]) -> bool:
    storages = [x.untyped_storage().data_ptr() for x in tensors if isinstance(x, Tensor) and x.numel()]
    return len(set(storages)) < len(storages)


def difference(actual: Any, exact: Any, eager: Any) -> str:
    """The difference of ``actual`` from ``exact`` (float64; None if unknown) in words, if it is larger than rounding
    explains; "" otherwise. ``eager`` is eager's result in the dtype of ``actual``."""
    if not isinstance(eager, Tensor) or not isinstance(actual, Tensor):
        return "" if type(actual) is type(eager) else f"is {type(actual).__name__}, not {type(eager).__name__}"
    if actual.shape != eager.shape or actual.dtype != eager.dtype:
        return f"is {actual.dtype} {tuple(actual.shape)}, not {eager.dtype} {tuple(eager.shape)}"
    # In double precision a view of bits has other sizes, and so may a choice of elements.
    known = isinstance(exact, Tensor) and exact.shape == eager.shape
    actual, exact = actual.detach(), exact if known else eager
    if actual.is_complex():
        actual, exact, eager = (torch.view_as_real(x.resolve_conj()) for x in (actual, exact, eager))
    if actual.dtype not in TOLERANCE:
        wrong = int(((actual != eager) & (actual != exact)).sum())
        return f"differs in {wrong} of {actual.numel()} elements" if wrong else ""
    a, e, own = actual.double(), exact.double(), eager.double()
    finite = torch.isfinite(e) & torch.isfinite(own)
    infinite = ~torch.isfinite(e) & ~torch.isfinite(own)
    if not torch.isfinite(a[finite]).all() or torch.isfinite(a[infinite]).any():
        return "has infinities or NaNs at other places than eager"
    off, error, scale = (_largest(x[finite]) for x in (a - e, own - e, e))
    if off <= TOLERANCE[actual.dtype] * scale + ERROR_MULTIPLE * error:
        return ""
    return f"is off by {off:.3g} where the largest element is {scale:.3g} and eager is off by {error:.3g}"


def _largest(x: Tensor) -> float:
    return float(x.abs().max()) if x.numel() else 0.0
