"""Compares a rewritten graph with the original: both run eagerly, in float64 and in their own dtypes, on the known
inputs and on hard inputs made from them."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import GraphModule

from torch_eqsat.errors import EqsatError, first_line
from torch_eqsat.graph.aten.deciding import is_choice
from torch_eqsat.graph.replay import Derived, Recording, Run, name_of, run
from torch_eqsat.verification.hard_inputs import Variant, jittered, made_up, variants

# In float64, the sides of a law differ by rounding only. In the graph's own dtype, the error of a rewrite may be a
# small multiple of the original's error, plus a few units in the last place. With few outputs, such as two logits, the
# original's error may be small by chance. The original is therefore also run on inputs changed by a rounding error, and
# the resulting error counts, but for at most LUCK times the original's: a cancellation would make it 10^4 times as
# large.
FP64_TOLERANCE = 1e-9
ERROR_MULTIPLE = 4.0
LUCK = 4.0
ULPS = 16
JITTERS = 2
# Some results are zero in exact arithmetic (the gradient of a bias before a normalisation) and consist of rounding
# errors alone. A rewrite's may be DUST times as large, and where inputs are not large MOST_DUST at most.
DUST, MOST_DUST = 64.0, 1e-10
LARGE = 100.0  # inputs beyond this are scaled or shifted
HARD_SECONDS = 4.0  # the time for hard inputs


class OriginalFaultError(EqsatError):
    """The original graph cannot be run here; the message gives the reason in one line."""


@dataclass
class Progress:
    """Which hard inputs were tried, by the keys of their variants, and whether some are ``left`` for want of time."""

    tried: list[str] = field(default_factory=list)
    left: bool = False


@dataclass
class _Judged:
    """The results of both graphs on one variant of the inputs: exact (float64) and rounded (their own dtypes)."""

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
    progress: Progress | None = None,
) -> str:
    """The reason why ``rewritten`` must not replace ``original``, in one line; "" if it may.

    ``inputs`` are real values for the placeholders and are not changed. Hard inputs are made from them at the places
    ``live`` (all if None) and tried for ``seconds``. Those that ``progress`` names are not tried again; those that are
    tried are noted there. Raises OriginalFaultError if ``original`` raises on ``inputs``.
    """
    progress = progress or Progress()
    with unset_fake_temporarily(), torch.no_grad():
        live = range(len(inputs)) if live is None else live
        pair = _Pair(original, rewritten, set(range(len(inputs))) - set(live))
        tried_on = variants(original.graph, inputs, live)
        problem = pair.problem(next(tried_on))  # the known inputs
        deadline = time.monotonic() + seconds
        for variant in (v for v in tried_on if v.key not in progress.tried):
            # One is tried however long the known inputs took, so that each process gets further than the one before.
            progress.left = not problem and time.monotonic() >= deadline
            if problem or progress.left:
                break
            problem = pair.problem(variant)
            progress.tried.append(variant.key)
    return problem


class _Pair:
    """The original and the rewritten graph. Calls that run only once have one recording for each variant."""

    def __init__(self, original: GraphModule, rewritten: GraphModule, fixed: Collection[int]) -> None:
        self.original, self.rewritten = original, rewritten
        sides = itertools.product((original, rewritten), (True, False))
        self._derived = {(side, in_double): Derived(side.graph, fixed) for side, in_double in sides}
        self._has_same_choices = _choices(original) == _choices(rewritten)

    def problem(self, variant: Variant) -> str:
        if variant.choices_once and not self._has_same_choices:
            return ""
        try:
            rounded, exact, recording = self._original(variant)
        except Exception as error:  # whatever the user's operators raise
            if variant.name:  # the graph may not accept hard inputs
                return ""
            raise OriginalFaultError(first_line(error)) from error
        try:
            judged = _aligned(
                variant,
                [exact, self._run(self.rewritten, variant, recording, in_double=True)],
                [rounded, self._run(self.rewritten, variant, recording, in_double=False)],
            )
        except Exception as error:
            return f"the rewritten graph raises {first_line(error)}"
        problem = self._first_difference(judged, recording)
        return f"{problem} ({variant.name})" if problem and variant.name else problem

    def _original(self, variant: Variant) -> tuple[Run, Run, Recording]:
        """The original's runs. Operators of other packages are run only if the graph raises on made-up results."""
        for made in (made_up, None):
            recording = Recording(made, variant.choices_once)
            try:
                rounded = self._run(self.original, variant, recording, in_double=False)
                return rounded, self._run(self.original, variant, recording, in_double=True), recording
            except Exception:
                if made is None:
                    raise
        raise AssertionError

    def _run(self, side: GraphModule, variant: Variant, recording: Recording, *, in_double: bool) -> Run:
        derived = self._derived[side, in_double]
        return run(side, variant.inputs, recording, in_double=in_double, derived=derived)

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
                # Large numbers make large dust: it is bounded on others, and shows on these what is dust.
                is_large = judged.variant.name and max(map(_largest, judged.variant.inputs)) > LARGE
                dust = dust if is_large else min(dust, MOST_DUST / DUST)
                problem = compare(values, spared, noise, dust, rounding=judged.variant.rounding)
            if problem:
                return f"{name}: {problem}"
        return ""

    def _perturbed(self, judged: _Judged, recording: Recording, *, in_double: bool) -> list[list[Any]]:
        """The original's outputs under other rounding errors: of its inputs or, in double precision, of all results."""
        found = []
        for seed in range(JITTERS):
            inputs = judged.variant.inputs if in_double else jittered(judged.variant.inputs, seed)
            noise = seed if in_double else None
            with contextlib.suppress(RuntimeError):  # a changed value may lie outside the domain of an operator
                made = run(self.original, inputs, recording, in_double=in_double, noise=noise)
                found.append(_flat(made, judged.names))
        return found


def _choices(side: GraphModule) -> set[tuple[str, str]]:
    """The calls that choose, by name, and what they return, without values."""
    return {(name_of(n), str(n.meta.get("val"))) for n in side.graph.nodes if is_choice(n)}


def _aligned(variant: Variant, exact: Sequence[Run], rounded: Sequence[Run]) -> _Judged:
    """The outputs, and the operands of recorded calls that both graphs have."""
    original, rewritten = exact
    shared = [name for name in original.operands if name in rewritten.operands]
    if len(original.outputs) != len(rewritten.outputs):
        raise ValueError(f"{len(original.outputs)} outputs become {len(rewritten.outputs)}")
    if set(original.written) != set(rewritten.written):
        raise ValueError(f"it writes into {list(original.written)}, then into {list(rewritten.written)}")
    names = [f"output {index}" for index in range(len(original.outputs))]
    names += [_after(name) for name in original.written]  # a cache, or running statistics
    names += [f"operand {i} of {name}" for name in shared for i in range(len(original.operands[name]))]
    first, second, third, fourth = (_flat(made, names) for made in (*exact, *rounded))
    return _Judged(variant, first, second, third, fourth, names)


def _after(name: str) -> str:
    return f"input {name} after the call"


def _flat(made: Run, names: Sequence[str]) -> list[Any]:
    given = {f"operand {i} of {name}": v for name, values in made.operands.items() for i, v in enumerate(values)}
    given |= {_after(name): value for name, value in made.written.items()}
    return [*map(_as_real, made.outputs), *(_as_real(given.get(name)) for name in names[len(made.outputs) :])]


def _as_real(value: Any) -> Any:
    """Complex numbers as pairs of real numbers, and numbers of eight bits, for which torch has hardly any function, in
    single precision; other values unchanged."""
    if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype.itemsize == 1:
        return value.float()
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
    """The disagreement in words, "" if there is none, between the four ``values`` of one output: exact and rounded,
    each of the original and of the rewritten graph.

    ``spared`` elements may be of different kinds (see `Variant.spared`). ``noise`` is the original's error on changed
    inputs, ``dust`` the effect of rounding errors on exact results.
    """
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
    if off > FP64_TOLERANCE * scale + DUST * dust:
        return f"in float64 off by {off:.3g} of {scale:.3g}"
    if not rounding:
        return ""
    finite &= torch.isfinite(rounded) & torch.isfinite(rounded_rewritten)
    error = _rms((rounded - exact)[finite])
    error_rewritten = _rms((rounded_rewritten - exact)[finite])
    eps = torch.finfo(rounded.dtype).eps
    usual = max(error, min(noise, LUCK * error))
    if error > scale:  # not one digit is right, so how large the error is tells nothing: other roundings tell
        usual = max(usual, dust * eps / torch.finfo(torch.float64).eps)
    if not error_rewritten <= ERROR_MULTIPLE * usual + ULPS * eps * scale:
        return f"rounding error {error_rewritten:.3g} against {error:.3g} of the original"
    return ""


def _same_kinds(a: torch.Tensor, b: torch.Tensor, spared: torch.Tensor | None) -> bool:
    """Whether infinities and NaNs are at the same places. If ``spared`` is given, the inputs had an infinity: the
    ``spared`` elements may be of any kind, and all other finite elements of ``a`` must be finite in ``b``."""
    if spared is None:
        return bool(torch.equal(_kinds(a), _kinds(b)))
    return not bool((torch.isfinite(a) & ~torch.isfinite(b) & ~spared).any())


def _kinds(x: torch.Tensor) -> torch.Tensor:
    """The kind of each element: 0 for finite numbers, 1 and -1 for infinities, 2 for NaN."""
    signs = torch.zeros_like(x).masked_fill_(torch.isposinf(x), 1.0).masked_fill_(torch.isneginf(x), -1.0)
    return signs.masked_fill_(x.isnan(), 2.0)


def _rms(x: torch.Tensor) -> float:
    """The root mean square; squares of large numbers do not overflow."""
    if not x.numel():
        return 0.0
    largest = float(x.double().abs().max())
    return largest * float((x.double() / largest).square().mean().sqrt()) if largest > 0 else largest


def _largest(value: Any) -> float:
    """The largest finite number of an input; 0 if it has none."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return 0.0
    value = _as_real(value)
    finite = value[torch.isfinite(value)]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _rms_finite(x: torch.Tensor) -> float:
    return _rms(x[torch.isfinite(x)])
