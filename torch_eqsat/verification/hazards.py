"""Finds the assumptions that a law needs: its two sides are compared on values that only an assumption excludes.

Each hazard is a way of drawing inputs. If the two sides of a law differ on them, the law needs the hazard's property
(see torch_eqsat/laws/assumptions.py). A law must declare all properties found, and each declared property must be found
on at least one of its examples.

    >>> from torch_eqsat.verification.laws import law_named
    >>> law = law_named("groups_are_joined")
    >>> sorted(needed(law, law.examples[0], seed=0))
    ['all_finite', 'finite']
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import permutations

import torch
from torch import Tensor

from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.graph.emitter import torch_dtype
from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.ir.types import HALF
from torch_eqsat.laws.example import build_example
from torch_eqsat.laws.law import Law
from torch_eqsat.laws.matcher import rewrites
from torch_eqsat.verification.interpreter import Drawing, draw_inputs, evaluate

IMPLIED = {
    "all_finite": {"finite"},
    "no_mask": {"finite", "all_finite", "even"},
    "even": {"no_mask"},
    "positive": {"finite", "all_finite", "no_mask"},
}
"""The other properties that a property implies."""
MASK = torch.finfo(torch.float32).min
SPECIAL = (float("nan"), float("inf"), -float("inf"), MASK)
OFFSETS = (0.0, 1e6, -1e6, 1e3)
SCALES = (1.0, 30.0, 200.0, 1000.0, 1e-5)
# The right side's rounding error may be SLACK times the left side's, or SLACK times the epsilon of its root mean
# square.
SLACK = 16.0
EPSILON = 1.2e-7
LARGE = 1e10  # the rounding errors of masks are larger
DRAWS = 8  # the number of draws of offsets and of scales

Inputs = dict[int, Tensor]


def needed(law: Law, example: str, seed: int) -> set[str]:
    """The properties without which the two sides of ``law`` differ on ``example``."""
    graph = TermGraph()
    graph.roots = [build_example(example, Builder(GraphStore(graph))).id]
    found: set[str] = set()
    for old, new in rewrites(law, graph):
        if old != new:
            found |= needed_between(graph, old, new, seed)
    return found


def undeclared(law: Law, found: set[str]) -> set[str]:
    """Those of ``found`` that ``law`` neither declares nor implies by a declaration."""
    declared = {assumption.property for assumption in law.assumptions}
    return found - declared - {p for d in declared for p in IMPLIED.get(d, ())}


def needed_between(graph: TermGraph, old: int, new: int, seed: int) -> set[str]:
    """The properties of the inputs of ``graph`` without which the terms ``old`` and ``new`` differ."""
    inputs = draw_inputs(graph, Drawing("normal", "float64", False, seed))
    read = [n for n in graph.reachable([old]) if n in inputs]
    generator = torch.Generator().manual_seed(seed)
    free = [n for n in read if inputs[n].is_floating_point() and not _is_fixed(graph, n)]
    both = partial(_both, graph, old, new)
    base = both(inputs, "float64")
    if base is None:
        return set()
    found: set[str] = set()
    if base[0].is_floating_point():
        agree = base[0].isfinite() == base[1].isfinite()
        found |= set() if bool(agree.all()) else {"positive"}
        for number in free:
            found |= _poisoned(both, inputs, number, free, agree, generator)
        if all(node.op != "sdpa" for node in graph.nodes):  # a softmax of large numbers selects one, it is no sum
            added = [number for number in free if number not in _multiplied(graph, old)]
            found |= _cancelling(graph, both, inputs, free, generator) | _masked(both, inputs, added, base)
        found |= _overflowing(both, inputs, free, agree, generator)
    return found | _out_of_range(graph, old, new, inputs, read)


def _is_fixed(graph: TermGraph, number: int) -> bool:
    return not {"repeats", "eye", "upper", "value"}.isdisjoint(dict(graph.nodes[number].attrs))


def _both(graph: TermGraph, old: int, new: int, inputs: Inputs, dtype: str) -> tuple[Tensor, Tensor] | None:
    """The values of both sides; None if a kernel does not accept the dtype or the values."""
    try:
        values = evaluate(graph, inputs, dtype, [old, new])
    except (RuntimeError, NotImplementedError, IndexError, TypeMismatchError):
        return None
    return values[old], values[new]


# One infinity, NaN or mask


def _poisoned(
    both: partial[tuple[Tensor, Tensor] | None],
    inputs: Inputs,
    number: int,
    free: Sequence[int],
    agree: Tensor,
    generator: torch.Generator,
) -> set[str]:
    found: set[str] = set()
    if not inputs[number].numel():
        return found
    place = int(torch.randint(inputs[number].numel(), (1,), generator=generator))
    for holes in (False, True):
        around = {n: _with_holes(v, generator) if holes and n in free and n != number else v for n, v in inputs.items()}
        results = [both({**around, number: _with(inputs[number], place, v)}, "float64") for v in SPECIAL]
        unchanged = both(around, "float64")
        if results[0] is None or unchanged is None:
            continue
        # The elements that depend on the changed one. An index or a comparison of NaN is no NaN, but another one.
        reached = results[0][0].isnan()
        moved = reached | (results[0][0] != unchanged[0])
        for special, result in zip(SPECIAL, results, strict=True):
            if result is not None:
                found |= _kinds(*result, agree, reached, moved, special)
    return found


def _multiplied(graph: TermGraph, root: int) -> set[int]:
    """The terms below matrix products, where no mask occurs."""
    products = [n for n in graph.reachable([root]) if "heavy" in OPERATORS[graph.nodes[n].op].traits]
    return set(graph.reachable(child for n in products for child in graph.nodes[n].children))


def _masked(
    both: partial[tuple[Tensor, Tensor] | None], inputs: Inputs, free: Sequence[int], base: tuple[Tensor, Tensor]
) -> set[str]:
    """One input is all masks, another one their negatives, for each pair of inputs."""
    for one, other in permutations(free, 2):
        masks = {one: torch.full_like(inputs[one], MASK), other: torch.full_like(inputs[other], -MASK)}
        result = both({**inputs, **masks}, "float64")
        if result is None:
            continue
        a, b = result
        finite = a.isfinite() & b.isfinite() & base[0].isfinite() & (a.abs() < LARGE) & (b.abs() < LARGE)
        if not torch.allclose(a[finite], b[finite], rtol=1e-6, atol=1e-6 * _rms(base[0][base[0].isfinite()])):
            return {"no_mask"}
    return set()


def _with(x: Tensor, place: int, value: float) -> Tensor:
    flat = x.contiguous().clone().view(-1)
    flat[place] = value
    return flat.view(x.shape)


def _with_holes(x: Tensor, generator: torch.Generator) -> Tensor:
    return x * (torch.rand(x.shape, generator=generator) > 0.3)


def _kinds(a: Tensor, b: Tensor, agree: Tensor, reached: Tensor, moved: Tensor, special: float) -> set[str]:
    """The properties without which ``a`` and ``b`` differ, if ``special`` makes the elements ``reached`` of ``a`` NaN
    and changes those that have ``moved``."""
    fa, fb = a.isfinite(), b.isfinite()
    spread = fa & ~fb & agree
    wrong = fa & fb & agree & ~_near(a, b)
    if special == MASK:
        found = {"no_mask"} if bool(((wrong | (fa != fb)) & agree & reached).any()) else set()
        return found | ({"even"} if bool(((wrong | spread) & ~reached).any()) else set())
    elsewhere = (spread & ~reached & ~_beside(reached)) | (wrong & ~moved)
    found = {"all_finite"} if bool(elsewhere.any()) else set()
    other_kind = ~fa & ~fb & (a.isnan() != b.isnan())
    return found | ({"finite"} if bool((spread | wrong | (~fa & fb & agree) | other_kind).any()) else set())


def _near(a: Tensor, b: Tensor) -> Tensor:
    finite = a[a.isfinite() & (a.abs() < 1e30)]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    return (a - b).abs() <= 1e-6 * a.abs() + 1e-9 * scale


def _beside(reached: Tensor) -> Tensor:
    """All elements in the sample and channel (the first two axes) of a reached one: those that a convolution may also
    reach."""
    if reached.dim() < 3:
        return torch.zeros_like(reached)
    return reached.flatten(2).any(2).view(*reached.shape[:2], *[1] * (reached.dim() - 2)).expand_as(reached)


# Rounding, overflow


def _cancelling(
    graph: TermGraph,
    both: partial[tuple[Tensor, Tensor] | None],
    inputs: Inputs,
    free: Sequence[int],
    generator: torch.Generator,
) -> set[str]:
    """Common offsets, which may cancel. These inputs are exact in float32."""
    for _ in range(DRAWS):
        picks = torch.randint(len(OFFSETS), (len(free),), generator=generator).tolist()
        drawn = {**inputs, **{n: inputs[n] + OFFSETS[pick] for n, pick in zip(free, picks, strict=True)}}
        single = {n: _in_single(graph, n, v) for n, v in drawn.items()}
        double = {n: v.double() if v.is_floating_point() else v for n, v in single.items()}
        exact, rounded = both(double, "float64"), both(single, "float32")
        if exact is None or rounded is None:
            continue
        known = exact[0].isfinite() & rounded[0].isfinite() & rounded[1].isfinite()
        if not bool(known.any()):
            continue
        error, other = (_rms(exact[0][known] - side.double()[known]) for side in rounded)
        if other > SLACK * max(error, EPSILON * _rms(exact[0][known])):
            return {"no_cancellation"}
    return set()


def _in_single(graph: TermGraph, number: int, value: Tensor) -> Tensor:
    """An input in single precision; one of half precision in its own."""
    if not value.is_floating_point():
        return value
    type_ = graph.types[number]
    assert type_ is not None
    return value.to(torch_dtype(type_.dtype)) if type_.dtype in HALF else value.float()


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt()) if x.numel() else 0.0


def _overflowing(
    both: partial[tuple[Tensor, Tensor] | None],
    inputs: Inputs,
    free: Sequence[int],
    agree: Tensor,
    generator: torch.Generator,
) -> set[str]:
    """Large numbers in float16, which may overflow."""
    for _ in range(DRAWS):
        half = {n: v.half() if v.is_floating_point() else v for n, v in inputs.items()}
        picks = torch.randint(len(SCALES), (len(free),), generator=generator).tolist()
        half |= {n: (inputs[n] * SCALES[pick]).half() for n, pick in zip(free, picks, strict=True)}
        result = both(half, "float16")
        if result is not None and bool((result[0].isfinite() & ~result[1].isfinite() & agree).any()):
            return {"no_overflow"}
    return set()


# Indices


def _out_of_range(graph: TermGraph, old: int, new: int, inputs: Inputs, read: Sequence[int]) -> set[str]:
    for changed in _misplaced(graph, inputs, read):
        sides = []
        for root in (old, new):
            try:
                sides.append(evaluate(graph, changed, "float64", [root])[root])
            except (RuntimeError, IndexError):
                sides.append(None)
        a, b = sides
        if (a is None) != (b is None) or (a is not None and b is not None and not torch.allclose(a, b, equal_nan=True)):
            return {"in_range"}
    return set()


def _misplaced(graph: TermGraph, inputs: Inputs, read: Sequence[int]) -> Iterator[Inputs]:
    """Inputs with one index out of the range of its table, at each of a few places."""
    for number in read:
        value = inputs[number]
        if value.dtype != torch.int64 or _is_fixed(graph, number) or not value.numel():
            continue
        for place in {0, value.numel() - 1}:
            for bad in (-1, 5, 1000):
                yield {**inputs, number: _with(value, place, bad)}
