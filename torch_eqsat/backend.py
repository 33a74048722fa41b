"""The torch.compile backends: ``eqsat_mcts``, Inductor with one more pass over the functional ATen graph, and
``eqsat_mcts_eager``, which runs the same graphs without generating code."""

from __future__ import annotations

import hashlib
import logging
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._dynamo.utils import counters
from torch._guards import TracingContext
from torch._inductor import config as inductor_config
from torch._inductor import list_mode_options
from torch._inductor.compile_fx import compile_fx_inner
from torch._inductor.custom_graph_pass import CustomGraphPass
from torch.fx import Graph, GraphModule

from torch_eqsat import report as reports
from torch_eqsat.cost.table import close_tables
from torch_eqsat.counters import COUNTERS
from torch_eqsat.errors import first_line
from torch_eqsat.options import Options
from torch_eqsat.planning.dynamic import optimize
from torch_eqsat.planning.inductor.attention import fuse_attention
from torch_eqsat.planning.inductor.compiling import Compilation
from torch_eqsat.planning.inductor.freezing import is_weight, let_go, lift_weights, watch_weights
from torch_eqsat.planning.inductor.interpreting import SETTINGS, interpret
from torch_eqsat.planning.inductor.versions import forget_checks
from torch_eqsat.planning.plans.plan_store import forget_plan
from torch_eqsat.planning.plans.source import source_hash
from torch_eqsat.planning.setting import Setting
from torch_eqsat.planning.verdict import GraphInputs
from torch_eqsat.search.parameters import SearchParameters
from torch_eqsat.user_laws import NO_LAWS, UserLaws, load_laws
from torch_eqsat.verification.guard import Reference, guarded

logger = logging.getLogger(__name__)


def eqsat_mcts(
    module: GraphModule,
    inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: dict[str, Any] | None = None,
) -> Callable[..., Any]:
    """Compile a Dynamo graph. ``options`` are ours (``eqsat.*``, see :class:`~torch_eqsat.options.Options`) and
    Inductor's. Raises OptionError for a bad ``eqsat.`` option and LawError for a bad law of ``eqsat.laws``, before
    any work."""
    return _backend(module, inputs, mode, options, compile_fx_inner)


def eqsat_mcts_eager(
    module: GraphModule,
    inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: dict[str, Any] | None = None,
) -> Callable[..., Any]:
    """As :func:`eqsat_mcts`, but what it hands to Inductor is run call by call, and no code is generated: for tests,
    and to tell whether a wrong result comes from a rewrite or from Inductor."""
    return _backend(module, inputs, mode, options, interpret, **SETTINGS)


def _backend(
    module: GraphModule,
    inputs: Sequence[Any],
    mode: str | None,
    options: dict[str, Any] | None,
    inner: Callable[..., Any],
    **settings: Any,
) -> Callable[..., Any]:
    """``inner`` makes code of a graph after our pass; ``settings`` are Inductor's that it needs."""
    own, patches = Options.parse(options)
    user_laws = load_laws(own)
    if mode is not None:
        patches = {**list_mode_options(mode), **patches}
    patches.update(settings)
    # Dynamo traces inference graphs without grad mode; only then may weights be constants.
    freeze = bool(patches.get("freezing", inductor_config.freezing)) and not torch.is_grad_enabled()
    values, placeholders = list(inputs), module.graph.find_nodes(op="placeholder")
    weights = [i for i, (n, v) in enumerate(zip(placeholders, inputs, strict=False)) if is_weight(n, v)]
    lifting = lift_weights(module, inputs) if freeze and not inductor_config.freezing else None
    patches["freezing"] = frozen = lifting is not None or (freeze and inductor_config.freezing)
    our_pass = EqsatPass(own, frozen, weights, values, user_laws)
    compilation = Compilation(module, list(inputs), lifting, dict(patches), our_pass, inner)
    reference = Reference(module) if own.guard == "first_calls" else None
    compiled = compilation.run()
    our_pass.release()
    if compilation.lifting is not lifting:  # it was taken back: the inputs are others
        return compiled
    if lifting is not None:
        lifting.release()
    if frozen:
        watch_weights(module, values=own.watch == "values")
        let_go(compiled)
    return guarded(compiled, reference, own.guard_calls, our_pass.blame, patches) if reference else compiled


def reset() -> None:
    """Forget reports, counters and the checks of weights that were frozen, and close the table of kernel times; called
    by ``torch.compiler.reset()``."""
    reports.reset()
    forget_checks()
    close_tables()
    counters.pop(COUNTERS, None)


eqsat_mcts.reset = eqsat_mcts_eager.reset = reset  # type: ignore[attr-defined]


def _nothing() -> None:
    """Stands for an input that is no tensor."""


class EqsatPass(CustomGraphPass):
    """The pass over the joint or inference graph. Never raises (unless ``eqsat.strict``): on a fault it leaves the
    graph as it was, logs one line and counts it."""

    def __init__(
        self,
        options: Options,
        frozen: bool,
        weights: Sequence[int],
        values: Sequence[Any],
        user_laws: UserLaws = NO_LAWS,
        parameters: SearchParameters = SearchParameters(),
    ) -> None:
        self.options, self.frozen, self.user_laws, self.parameters = options, frozen, user_laws, parameters
        self.weights = weights
        # In a graph that is trained weights are no constants.
        self.trained = torch.is_grad_enabled()
        # The pass lives as long as the compiled graph; it must not keep the user's tensors alive.
        self._values = [weakref.ref(v) if isinstance(v, torch.Tensor) else _nothing for v in values]
        self.threads = torch.get_num_threads()
        self.reports: list[reports.GraphReport] = []

    @property
    def rewritten(self) -> list[reports.GraphReport]:
        """The reports of graphs that were rewritten."""
        return [report for report in self.reports if report.changed]

    def release(self) -> None:
        """Forget the inputs: a tensor that is referred to weakly cannot be swapped (`torch.utils.swap_tensors`)."""
        self._values.clear()

    def uuid(self) -> str:
        """What compiled graphs depend on besides themselves; Inductor's caches are keyed by it."""
        chosen = repr(self.options), repr(self.parameters), self.user_laws.key
        parts = (source_hash(), *chosen, self.frozen, self.threads, torch.__version__)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def __call__(self, graph: Graph) -> None:
        counters[COUNTERS]["graphs"] += 1
        try:
            fuse_attention(graph)
            report = optimize(graph, self._setting(graph), self._inputs(graph))
        except Exception as error:
            counters[COUNTERS]["faults"] += 1
            if self.options.strict:
                raise
            logger.warning("graph left as it is: %s", first_line(error))
            reports.record(
                reports.GraphReport(len(graph.nodes), self.frozen, f"left as it is: {type(error).__name__}: {error}")
            )
            return
        self.reports.append(report)
        counters[COUNTERS]["rewritten" if report.changed else "unchanged"] += 1
        counters[COUNTERS]["plans_reused"] += report.from_plan
        logger.info("%s", report)
        reports.record(report)

    def _setting(self, graph: Graph) -> Setting:
        tiles = not inductor_config.cpp_wrapper
        key = f"{self.uuid()} {tiles}"
        given = self.options, self.frozen, _device(graph), self.threads, key, self.user_laws.shipped
        return Setting(*given, parameters=self.parameters, tiles=tiles)

    def blame(self) -> str:
        """What may be wrong with the compiled graphs: the laws and regions that they were rewritten by, in a line."""
        if not self.reports:
            return "it came from torch's cache, by laws that are not known now"
        if not self.rewritten:
            return "no law was applied to it"
        laws: set[str] = set().union(*(report.laws for report in self.rewritten))
        changed = [r for report in self.rewritten for r in report.regions if r.best_ms < r.base_ms]
        regions = ", ".join(f"x{r.count} of {r.terms} terms" for r in changed)
        # A law that puts two terms into one class and makes none is not counted.
        return f"regions {regions} by laws {', '.join(sorted(laws)) or 'that made no terms'}"

    def take_back(self, error: Exception, what: str = "rewritten") -> None:
        """Say that what was ``what`` (rewritten or frozen) did not compile, and keep rewritten graphs from coming back
        from the disk."""
        reason = f"left as it is: {what} it does not compile ({first_line(error)})"
        for report in self.reports:
            if report.changed:
                forget_plan(report.plan_key)
                counters[COUNTERS]["rewritten"] -= 1
                counters[COUNTERS]["unchanged"] += 1
            if report.changed or what == "frozen":
                report.changed, report.decision = False, reason
            report.frozen = report.frozen and what != "frozen"
        counters[COUNTERS]["faults"] += 1
        logger.warning("graph left as it is: %s it does not compile: %s", what, first_line(error))

    def _inputs(self, graph: Graph) -> GraphInputs:
        """Which placeholders hold weights: under freezing the first ones, else those that Dynamo marked."""
        count = len(graph.find_nodes(op="placeholder"))
        known = [value() for value in self._values]
        context = TracingContext.try_get()
        parameters = list(context.params_flat or []) if context is not None else []
        if self.frozen:
            mutated = set(getattr(context.fw_metadata, "mutated_inp_runtime_indices", ())) if context else set()
            lifted = {id(p) for p in parameters}
            rest = [v for v in known if id(v) not in lifted]
            values = [*parameters, *rest]
            if count != len(values):  # the body of a cond or of another higher-order operator
                return GraphInputs(frozenset(), ())
            return GraphInputs(frozenset(set(range(len(parameters))) - mutated), values)
        if self.trained:  # the forward's inputs, then the gradients of its outputs
            nodes = graph.find_nodes(op="placeholder")
            primals = [n.meta.get("val") for n in nodes if "tangents" not in str(n.target)]
            fits = len(primals) == len(known) and all(map(_is_of, known, primals))
            if not fits:  # an input that is given twice
                return GraphInputs(frozenset(), ())
            return GraphInputs(frozenset(), known, frozenset(self.weights))
        if count != len(known):
            return GraphInputs(frozenset(), ())
        return GraphInputs(frozenset(self.weights), known)


def _is_of(value: Any, fake: Any) -> bool:
    """Whether ``value`` may be that of the placeholder with the value ``fake``."""
    if not isinstance(value, torch.Tensor) or not isinstance(fake, torch.Tensor):
        return not isinstance(value, torch.Tensor) and not isinstance(fake, torch.Tensor)
    sizes = zip(value.shape, fake.shape, strict=False)
    same = all(type(m) is not int or n == m for n, m in sizes)  # symbols are not compared: that makes guards
    return bool(same and value.dim() == fake.dim() and value.dtype == fake.dtype)


def _device(graph: Graph) -> str:
    """The type of the device that the graph computes on ("cpu" without tensors); ValueError when there are several.
    Numbers (0-dim tensors) may lie elsewhere."""
    values = [v for n in graph.nodes if isinstance(v := n.meta.get("val"), torch.Tensor)]
    kinds = {v.device.type for v in values if v.dim() > 0} or {v.device.type for v in values} or {"cpu"}
    if len(kinds) != 1:
        raise ValueError(f"the graph computes on {sorted(kinds)}; one device is needed")
    return str(kinds.pop())
