"""Whether a rewritten graph computes what the original does: both run eagerly, in float64 and in their own dtypes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch._dynamo.debug_utils import cast_dtype_args_to_fp64
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.fx import GraphModule, Interpreter

# In float64 a law leaves nothing but rounding. In the graph's own dtype a rewrite may round differently, not worse:
# a small multiple of the original's error, or of what the original makes of inputs that are off by a rounding error
# (of two logits the original's own error may be small by luck), plus a few units in the last place.
FP64_TOLERANCE = 1e-9
ERROR_MULTIPLE = 4.0
ULPS = 16
JITTERS = 2


def disagreement(original: GraphModule, rewritten: GraphModule, inputs: Sequence[Any]) -> str:
    """Why ``rewritten`` must not replace ``original``, in a line; "" when it may.

    ``inputs`` are real values for the placeholders; they are not changed.
    """
    with unset_fake_temporarily(), torch.no_grad():
        exact = _run(original, inputs, in_double=True)
        exact_rewritten = _run(rewritten, inputs, in_double=True)
        rounded = _run(original, inputs, in_double=False)
        rounded_rewritten = _run(rewritten, inputs, in_double=False)
        pairs = list(zip(exact, exact_rewritten, rounded, rounded_rewritten, strict=True))
        jittered: list[list[Any]] = []
        for index, (a, b, c, d) in enumerate(pairs):
            if not isinstance(a, torch.Tensor) or not _compare(a, b, c, d, 0.0):
                continue
            noise = 0.0
            if a.is_floating_point():
                jittered = jittered or [_run(original, _jitter(inputs, n), in_double=False) for n in range(JITTERS)]
                noise = max(_rms((run[index] - a)[torch.isfinite(a)]) for run in jittered)
            if problem := _compare(a, b, c, d, noise):
                return f"output {index}: {problem}"
    return ""


def _jitter(inputs: Sequence[Any], seed: int) -> list[Any]:
    """``inputs`` with each number off by up to a unit in the last place."""
    generator = torch.Generator().manual_seed(seed)

    def off(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        factor = torch.rand(value.shape, generator=generator, dtype=torch.float64).to(value.device) * 2 - 1
        return (value.double() * (1 + torch.finfo(value.dtype).eps * factor)).to(value.dtype)

    return [off(value) for value in inputs]


def _compare(exact: Any, exact_rewritten: Any, rounded: Any, rounded_rewritten: Any, noise: float) -> str:
    if rounded.shape != rounded_rewritten.shape or rounded.dtype != rounded_rewritten.dtype:
        return f"{rounded.dtype} {tuple(rounded.shape)} becomes {tuple(rounded_rewritten.shape)}"
    if not rounded.dtype.is_floating_point:
        return "" if torch.equal(rounded, rounded_rewritten) else "integer values differ"
    finite = torch.isfinite(exact)
    if not torch.equal(_signs(exact[~finite]), _signs(exact_rewritten[~finite])) or not torch.equal(
        finite, torch.isfinite(exact_rewritten)
    ):
        return "infinities or NaNs differ"
    scale = _rms(exact[finite])
    off = _rms((exact - exact_rewritten)[finite])
    if off > FP64_TOLERANCE * scale:
        return f"in float64 off by {off:.3g} of {scale:.3g}"
    error = _rms((rounded - exact)[finite])
    error_rewritten = _rms((rounded_rewritten - exact)[finite])
    ulp = torch.finfo(rounded.dtype).eps * scale
    if not error_rewritten <= ERROR_MULTIPLE * max(error, noise) + ULPS * ulp:
        return f"rounding error {error_rewritten:.3g} against {error:.3g} of the original"
    return ""


def _signs(x: torch.Tensor) -> torch.Tensor:
    """Tells infinities of both signs and NaN apart."""
    return x.nan_to_num(nan=0.0, posinf=1.0, neginf=-1.0)


def _rms(x: torch.Tensor) -> float:
    return float(x.double().square().mean().sqrt()) if x.numel() else 0.0


def _run(module: GraphModule, inputs: Sequence[Any], *, in_double: bool) -> list[Any]:
    """All outputs of ``module`` in one flat list."""
    values = [_copy(value, in_double) for value in inputs]
    if in_double:
        module = _in_double(module)
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=gpus):
        torch.manual_seed(0)
        outputs = Interpreter(module).run(*values)
    flat, _ = torch.utils._pytree.tree_flatten(outputs)
    return list(flat)


def _copy(value: Any, in_double: bool) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach()
    return value.double() if in_double and value.is_floating_point() else value.clone()


def _in_double(module: GraphModule) -> GraphModule:
    """A copy of ``module`` that computes in float64."""
    graph = torch.fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    copy = GraphModule(module, graph)
    for name, buffer in list(copy.named_buffers()) + list(copy.named_parameters()):
        if buffer.is_floating_point() and "." not in name:
            delattr(copy, name)
            copy.register_buffer(name, buffer.detach().double())
    return cast_dtype_args_to_fp64(copy)


def fits_in_memory(graph: torch.fx.Graph) -> bool:
    """Whether the inputs in float64 and in their own dtype, and as much again, fit in free memory (CPU)."""
    if "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return True
    values = [n.meta.get("val") for n in graph.find_nodes(op="placeholder")]
    sizes = [n if type(n) is int else n.node.hint for v in values if isinstance(v, torch.Tensor) for n in [v.numel()]]
    needed = 2 * sum(sizes) * (8 + 4)
    return needed < os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def sample_inputs(graph: torch.fx.Graph, known: Sequence[Any]) -> list[Any]:
    """Real values for the placeholders of ``graph``: those of ``known`` that fit, and random ones.

    Random weights are scaled as initialisation scales them, so that deep graphs neither explode nor vanish.
    """
    generator = torch.Generator().manual_seed(0)
    placeholders = graph.find_nodes(op="placeholder")
    fits = len(known) == len(placeholders)
    values = []
    with unset_fake_temporarily():
        for index, node in enumerate(placeholders):
            fake = node.meta["val"]
            value = known[index] if fits else None
            values.append(value if _stands_for(value, fake) else _random(fake, generator))
    return values


def _stands_for(value: Any, fake: Any) -> bool:
    """Whether ``value`` is a real tensor of the placeholder's shape and dtype."""
    if not isinstance(value, torch.Tensor) or not isinstance(fake, torch.Tensor) or isinstance(value, FakeTensor):
        return False
    static = all(type(n) is int for n in fake.shape)  # comparing with a symbolic size would make a guard of it
    return static and bool(value.shape == fake.shape and value.dtype == fake.dtype)


def _random(fake: Any, generator: torch.Generator) -> Any:
    if not isinstance(fake, torch.Tensor):
        return fake.node.hint if isinstance(fake, torch.SymInt) else fake
    shape = [n if type(n) is int else n.node.hint for n in fake.shape]  # int() would make a guard of it
    if not fake.is_floating_point():
        return torch.randint(0, 2, shape, generator=generator).to(fake.device, fake.dtype)
    if len(shape) < 2:
        value = torch.rand(shape, generator=generator) + 0.5
    else:
        value = torch.randn(shape, generator=generator) * max(1, torch.Size(shape[1:]).numel()) ** -0.5
    return value.to(fake.device, fake.dtype)
