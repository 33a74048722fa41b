"""Whether a rewritten graph computes what the original does: both run eagerly, in float64 and in their own dtypes, on
the inputs that are known and on hard ones made from them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import GraphModule

from torch_eqsat.errors import EqsatError
from torch_eqsat.graph.replay import Recording, Run, run
from torch_eqsat.verification.hard_inputs import Variant, jittered, made_up, variants

# In float64 a law leaves nothing but rounding. In the graph's own dtype a rewrite may round differently, not worse: a
# small multiple of the original's error, plus a few units in the last place. Of two logits the original's own error may
# be small by luck; what it makes of inputs that are off by a rounding error counts too, but for no more than LUCK times
# its error: a cancellation makes 10^4 times of it.
FP64_TOLERANCE = 1e-9
ERROR_MULTIPLE = 4.0
LUCK = 4.0
ULPS = 16
JITTERS = 2
# In exact arithmetic some results are zero (the gradient of a bias before a normalisation): what is left are rounding
# errors, of which a rewrite may make as many times more.
DUST, MOST_DUST = 64.0, 1e-10
HARD_SECONDS = 4.0  # after which no more hard inputs are tried


class OriginalFaultError(EqsatError):
    """The original graph cannot be run here; the message says why in a line."""


@dataclass
class _Judged:
    """One variant of the inputs: what both graphs make of it, exactly and rounded."""

    variant: Variant
    exact: list[Any]
    exact_rewritten: list[Any]
    rounded: list[Any]
    rounded_rewritten: list[Any]
    names: list[str]

    def values(self, index: int) -> list[Any]:
        """The four results of one output."""
        return [side[index] for side in (self.exact, self.exact_rewritten, self.rounded, self.rounded_rewritten)]


def disagreement(
    original: GraphModule,
    rewritten: GraphModule,
    inputs: Sequence[Any],
    live: Sequence[int] | None = None,
    seconds: float = HARD_SECONDS,
) -> str:
    """Why ``rewritten`` must not replace ``original``, in a line; "" when it may.

    ``inputs`` are real values for the placeholders, of which hard ones are made at the places ``live`` (all if None);
    they are not changed. Hard inputs are tried for ``seconds``. Raises OriginalFaultError where ``original`` raises on
    ``inputs``.
    """
    with unset_fake_temporarily(), torch.no_grad():
        start = time.monotonic()
        pair = _Pair(original, rewritten)
        for variant in variants(original.graph, inputs, range(len(inputs)) if live is None else live):
            if variant.name and time.monotonic() - start > seconds:
                break
            if problem := pair.problem(variant):
                return problem
    return ""


class _Pair:
    """A graph and its rewriting. Calls that are not run again have one recording for each variant."""

    def __init__(self, original: GraphModule, rewritten: GraphModule) -> None:
        self.original, self.rewritten = original, rewritten

    def problem(self, variant: Variant) -> str:
        try:
            rounded, exact, recording = self._original(variant)
        except Exception as error:  # whatever the user's operators raise
            if variant.name:  # hard inputs may be none that the graph takes
                return ""
            raise OriginalFaultError(f"{type(error).__name__}: {error}".partition("\n")[0]) from error
        try:
            judged = _aligned(
                variant,
                [exact, run(self.rewritten, variant.inputs, recording, in_double=True)],
                [rounded, run(self.rewritten, variant.inputs, recording, in_double=False)],
            )
        except Exception as error:
            return f"the rewritten graph raises {type(error).__name__}: {error}".partition("\n")[0]
        problem = self._first_difference(judged, recording)
        return f"{problem} ({variant.name})" if problem and variant.name else problem

    def _original(self, variant: Variant) -> tuple[Run, Run, Recording]:
        """The original's runs; operators of others are not run where values made up for them do."""
        for made in (made_up, None):
            recording = Recording(made)
            try:
                rounded = run(self.original, variant.inputs, recording, in_double=False)
                return rounded, run(self.original, variant.inputs, recording, in_double=True), recording
            except Exception:
                if made is None:
                    raise
        raise AssertionError

    def _first_difference(self, judged: _Judged, recording: Recording) -> str:
        noisy: list[list[Any]] = []
        dusty: list[list[Any]] = []
        for index, name in enumerate(judged.names):
            values = judged.values(index)
            if not isinstance(values[0], torch.Tensor) or not judged.variant.may_compare(values[0]):
                continue
            spared = judged.variant.spared(values[0])
            problem = compare(values, spared, rounding=judged.variant.rounding)
            if problem and judged.variant.kinds_only:
                problem = problem if problem == KINDS else ""
            if problem and values[0].is_floating_point() and problem != KINDS:
                noisy = noisy or self._perturbed(judged, recording, in_double=False)
                dusty = dusty or self._perturbed(judged, recording, in_double=True)
                noise, dust = (
                    max((_rms_finite(made[index].double() - values[0]) for made in runs), default=0.0)
                    for runs in (noisy, dusty)
                )
                problem = compare(values, spared, noise, dust, rounding=judged.variant.rounding)
            if problem:
                return f"{name}: {problem}"
        return ""

    def _perturbed(self, judged: _Judged, recording: Recording, *, in_double: bool) -> list[list[Any]]:
        """What the original makes of other rounding errors: of inputs that are off by one, or in double precision of
        results that are."""
        found = []
        for seed in range(JITTERS):
            inputs = judged.variant.inputs if in_double else jittered(judged.variant.inputs, seed)
            noise = seed if in_double else None
            with contextlib.suppress(RuntimeError):  # what is off by a rounding error may be outside of a domain
                made = run(self.original, inputs, recording, in_double=in_double, noise=noise)
                found.append(_flat(made, judged.names))
        return found


def _aligned(variant: Variant, exact: Sequence[Run], rounded: Sequence[Run]) -> _Judged:
    """Outputs, and what recorded calls were given where both graphs have the call."""
    original, rewritten = exact
    shared = [name for name in original.operands if name in rewritten.operands]
    if len(original.outputs) != len(rewritten.outputs):
        raise ValueError(f"{len(original.outputs)} outputs become {len(rewritten.outputs)}")
    names = [f"output {index}" for index in range(len(original.outputs))]
    names += [f"operand {i} of {name}" for name in shared for i in range(len(original.operands[name]))]
    first, second, third, fourth = (_flat(made, names) for made in (*exact, *rounded))
    return _Judged(variant, first, second, third, fourth, names)


def _flat(made: Run, names: Sequence[str]) -> list[Any]:
    given = {f"operand {i} of {name}": v for name, values in made.operands.items() for i, v in enumerate(values)}
    return [*map(_as_real, made.outputs), *(_as_real(given.get(name)) for name in names[len(made.outputs) :])]


def _as_real(value: Any) -> Any:
    """Complex numbers as pairs of real ones."""
    if not isinstance(value, torch.Tensor) or not value.is_complex():
        return value
    wide = value.to(torch.complex64) if value.dtype == torch.complex32 else value
    return torch.view_as_real(wide.resolve_conj())


KINDS = "infinities or NaNs differ"


def compare(
    values: Sequence[Any],
    spared: torch.Tensor | None,
    noise: float = 0.0,
    dust: float = 0.0,
    *,
    rounding: bool = True,
) -> str:
    """How four results of one output disagree: exact and rounded, each of the original and of the rewritten graph.
    ``spared`` elements need not be of one kind (see `Variant.spared`). ``noise`` is what rounded inputs make of the
    original's own error, ``dust`` what rounding does to exact results."""
    exact, exact_rewritten, rounded, rounded_rewritten = values
    if rounded.shape != rounded_rewritten.shape or rounded.dtype != rounded_rewritten.dtype:
        return f"{rounded.dtype} {tuple(rounded.shape)} becomes {tuple(rounded_rewritten.shape)}"
    if not rounded.dtype.is_floating_point:
        return "" if torch.equal(rounded, rounded_rewritten) else "integer values differ"
    for a, b in ((exact, exact_rewritten), (rounded, rounded_rewritten)):
        if not _same_kinds(a, b, spared):
            return KINDS
    finite = torch.isfinite(exact) & torch.isfinite(exact_rewritten)
    scale = _rms(exact[finite])
    off = _rms((exact - exact_rewritten)[finite])
    if off > FP64_TOLERANCE * scale + min(DUST * dust, MOST_DUST):
        return f"in float64 off by {off:.3g} of {scale:.3g}"
    if not rounding:
        return ""
    finite &= torch.isfinite(rounded) & torch.isfinite(rounded_rewritten)
    error = _rms((rounded - exact)[finite])
    error_rewritten = _rms((rounded_rewritten - exact)[finite])
    ulp = torch.finfo(rounded.dtype).eps * scale
    if not error_rewritten <= ERROR_MULTIPLE * max(error, min(noise, LUCK * error)) + ULPS * ulp:
        return f"rounding error {error_rewritten:.3g} against {error:.3g} of the original"
    return ""


def _same_kinds(a: torch.Tensor, b: torch.Tensor, spared: torch.Tensor | None) -> bool:
    """Whether infinities and NaNs stand at the same places. Where ``spared`` are given, ``a`` was given an infinity:
    what it reached may be another kind, and elsewhere nothing finite may become anything else."""
    if spared is None:
        return bool(torch.equal(_kinds(a), _kinds(b)))
    return not bool((torch.isfinite(a) & ~torch.isfinite(b) & ~spared).any())


def _kinds(x: torch.Tensor) -> torch.Tensor:
    """Tells finite numbers (0), infinities of both signs (1, -1) and NaN (2) apart."""
    signs = torch.zeros_like(x).masked_fill_(torch.isposinf(x), 1.0).masked_fill_(torch.isneginf(x), -1.0)
    return signs.masked_fill_(x.isnan(), 2.0)


def _rms(x: torch.Tensor) -> float:
    """The root mean square, of numbers whose squares may overflow."""
    if not x.numel():
        return 0.0
    largest = float(x.double().abs().max())
    return largest * float((x.double() / largest).square().mean().sqrt()) if largest > 0 else largest


def _rms_finite(x: torch.Tensor) -> float:
    return _rms(x[torch.isfinite(x)])


def fits_in_memory(graph: torch.fx.Graph) -> bool:
    """Whether the inputs in float64 and in their own dtype, and as much again, fit in free memory (CPU)."""
    if "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return True
    values = [n.meta.get("val") for n in graph.find_nodes(op="placeholder")]
    sizes = [n if type(n) is int else n.node.hint for v in values if isinstance(v, torch.Tensor) for n in [v.numel()]]
    needed = 2 * sum(sizes) * (8 + 4)
    return needed < os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
