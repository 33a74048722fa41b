"""Verifies laws from their declarations alone, with the same checks for the catalogue and for a user's own laws.

    >>> from torch_eqsat.laws.law import law
    >>> @law("v := view(view(x))", exactness="bitwise", example="view(view([2, 6], shape=[12]), shape=[3, 4])")
    ... def view_of_view(t, v, x):
    ...     "view(view(x)) = view(x)"
    ...     return t.view(x, v.shape)
    >>> verify(view_of_view)
    1

Each tier makes a promise, which is checked:

- ``bitwise``: each element results from the same operations on the same numbers, so both sides have the same bits, for
  NaN, infinities and signed zeros too. If a kernel rounds differently in its vectorised part than in the rest (exp,
  tanh, …; the sign of a zero in maximum), the sides differ as two runs of that kernel do.
- ``reassociates``: equal in real arithmetic. For finite inputs, rounding errors are of the size of the left side's own,
  or of the rounding unit of the largest number on either side. If an input is NaN or infinite or a sum overflows, one
  side may be NaN where the other is not.
- ``approximates``: equal in real arithmetic on the domain of both sides. The right side may cancel or overflow where
  the left side does not.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from torch_eqsat.errors import EqsatError, LawError, TypeMismatchError
from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.operators import OPERATORS
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.laws.example import build_example
from torch_eqsat.laws.law import Law
from torch_eqsat.laws.matcher import check_examples, rewrites
from torch_eqsat.rewrites import catalogue
from torch_eqsat.verification.egraphs import difference
from torch_eqsat.verification.hazards import needed, undeclared
from torch_eqsat.verification.interpreter import Drawing, draw_inputs, evaluate, is_exact, only_moves, takes_integers
from torch_eqsat.verification.variants import perturbed

EPSILON = {"float64": 2.3e-16, "float32": 1.2e-7, "bfloat16": 7.9e-3, "float16": 9.8e-4}
# The right side's rounding error may be SLACK times the left side's, or FLOOR times the epsilon of the largest number
# on either side (sums may cancel).
SLACK, FLOOR = 16.0, 64.0
DRAWS = 20
HAZARD_DRAWS = 4  # draws of infinities, masks, offsets and the like for each example


class WrongLawError(EqsatError):
    """The two sides of a law differ; the message ends with lines of Python that reproduce it."""


def verify(laws: Iterable[Law], draws: int = DRAWS, seed: int = 0) -> int:
    """Check laws on their examples, their near misses and ``draws`` variants of each example; the number of laws.

    Raises LawError if a law does not fire on an example, fires on a near miss, changes shape or dtype, or needs an
    undeclared assumption (see torch_eqsat.laws.assumptions). Raises WrongLawError if values or gradients differ. Both
    name the law, its file and line.
    """
    checked = list(laws)
    for law in checked:
        check_examples(law)
        check_near_misses(law)
        for number, example in enumerate(law.examples):
            check(law, example, seed)
            for draw in range(draws):
                check_variant(law, example, random.Random(f"{seed} {number} {draw}"))
        check_assumptions(law, seed)
    return len(checked)


def check_near_misses(law: Law) -> None:
    """Raises LawError if ``law`` fires on one of its near misses."""
    for example in law.refused:
        if rewrites(law, _graph(example)):
            raise LawError(f"law {law.name} ({law.source}) fires on its near miss {example}")


def check_assumptions(law: Law, seed: int = 0) -> None:
    """Raises LawError if ``law`` needs an assumption that it does not declare."""
    for example in law.examples:
        for draw in range(HAZARD_DRAWS):
            if missing := undeclared(law, needed(law, example, seed + draw)):
                names = ", ".join(sorted(missing))
                raise LawError(
                    f"law {law.name} ({law.source}) holds only under {names}, on {example}: "
                    "declare it with assumes={variable: assumption}, or guard against it"
                )


def check_variant(law: Law, example: str, rng: random.Random) -> bool:
    """Check ``law`` on a variant of ``example`` with other sizes, ranks and attributes, drawn by ``rng``; whether the
    law still fires. Raises as :func:`verify`.
    """
    seed = rng.randrange(1 << 20)
    try:
        text = perturbed(example, rng)
        graph = _graph(text)
        evaluate(graph, draw_inputs(graph, Drawing(seed=seed)))
    except (TypeMismatchError, IndexError, KeyError, ValueError, TypeError, RuntimeError):
        return False  # the variant is no term, or reads an operand out of bounds
    return check(law, text, seed)


def check(law: Law, example: str, seed: int = 0) -> bool:
    """Compare both sides of ``law`` at each place of ``example`` where it fires; whether it fires at all.

    Raises WrongLawError if their values differ, LawError if their shapes or dtypes differ.
    """
    graph = _graph(example)
    try:
        pairs = rewrites(law, graph)
        for old, new in pairs:
            problem = _compare(law, graph, old, new, seed)
            if problem:
                raise WrongLawError(problem)
    except (LawError, TypeMismatchError, WrongLawError) as error:
        raise type(error)(_report(law, example, seed, str(error))) from None
    return bool(pairs)


def _graph(example: str) -> TermGraph:
    graph = TermGraph()
    graph.roots = [build_example(example, Builder(GraphStore(graph))).id]
    return graph


def _report(law: Law, example: str, seed: int, problem: str) -> str:
    module = law.build.__module__
    return (
        f"law {law.name} ({law.source}): {problem}\n"
        f"  from torch_eqsat.verification.laws import check, law_named\n"
        f"  check(law_named({law.name!r}), {example!r}, seed={seed})  # declared in {module}"
    )


def law_named(name: str) -> Law:
    """The law of the catalogue with this name. Raises KeyError for an unknown name."""
    return {law.name: law for law in catalogue()}[name]


def _compare(law: Law, graph: TermGraph, old: int, new: int, seed: int) -> str:
    """The difference of the terms ``old`` and ``new`` in words; "" if there is none."""
    strided = bool(seed % 2)
    return (
        _in_integers(law, graph, old, new, seed, strided)
        or _in_floats(law, graph, old, new, seed, strided)
        or (_with_special_values(graph, old, new, seed) if law.exactness == "bitwise" else "")
        or _gradients(law, graph, old, new, seed)
    )


def _values(graph: TermGraph, old: int, new: int, drawing: Drawing) -> tuple[Tensor, Tensor]:
    values = evaluate(graph, draw_inputs(graph, drawing), drawing.dtype)
    return values[old], values[new]


def _in_integers(law: Law, graph: TermGraph, old: int, new: int, seed: int, strided: bool) -> str:
    """Both sides on small integers in float64, exactly if the terms are polynomial; also as integers, complex numbers
    and truth values if the terms only move elements."""
    tolerance = 0.0 if is_exact(graph, [old, new]) else 1e-11
    dtypes = ["float64", *(["int64"] if takes_integers(graph, [old, new]) else [])]
    dtypes += ["complex64", "bool"] if only_moves(graph, [old, new]) else []
    for dtype in dtypes:
        a, b = _values(graph, old, new, Drawing("integers", dtype, strided, seed))
        if law.exactness == "approximates":
            a, b = _where_both_are_finite(a, b)
        if problem := difference(a, b, tolerance):
            return f"integers in {dtype}: {problem}"
    return ""


def _in_floats(law: Law, graph: TermGraph, old: int, new: int, seed: int, strided: bool) -> str:
    """Both sides on normal numbers in each floating dtype: the right side's error against float64 and the left's."""
    for dtype, epsilon in EPSILON.items():
        if dtype == "float64":
            continue
        drawing = Drawing("normal", dtype, strided, seed)
        inputs = draw_inputs(graph, drawing)
        try:
            evaluate(graph, inputs, dtype, [old])
        except (RuntimeError, NotImplementedError):  # the left side has no kernel for half precision on this device
            continue
        values = evaluate(graph, inputs, dtype)
        if law.exactness == "bitwise":
            if problem := _otherwise(graph, old, new, values, epsilon):
                return f"{dtype}: {problem}"
            continue
        doubles = {n: v.double() if v.is_floating_point() else v for n, v in inputs.items()}
        in_double = evaluate(graph, doubles, "float64")
        exact = in_double[old]
        known = exact.isfinite() & values[old].isfinite()
        if law.exactness == "approximates":
            known &= values[new].isfinite()
        scale = max(_largest(in_double[term]) for term in graph.reachable([old, new]))
        if problem := _worse(exact[known], values[old][known], values[new][known], epsilon * scale):
            return f"{dtype}: {problem}"
    return ""


def _largest(x: Tensor) -> float:
    finite = x[x.isfinite()] if x.is_floating_point() else x.flatten()[:0]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _worse(exact: Tensor, a: Tensor, b: Tensor, unit: float) -> str:
    if not exact.is_floating_point() or exact.numel() == 0:
        return ""
    error_a, error_b = ((exact - x.double()).abs().max().item() for x in (a, b))
    if error_b <= max(SLACK * error_a, FLOOR * unit):  # false for NaN
        return ""
    return f"error {error_b:.3g}, the left side's {error_a:.3g}, rounding unit {unit:.3g}"


def _otherwise(graph: TermGraph, old: int, new: int, values: Mapping[int, Tensor], epsilon: float) -> str:
    """The difference of the sides of a bitwise law in words, signs of zeros included. If a kernel's own rounding
    depends on the place of an element, a few units are allowed. All NaNs are equal."""
    a, b = values[old], values[new]
    varies = any(OPERATORS[graph.nodes[n].op].by_place for n in graph.reachable([old, new]))
    if varies or not a.is_floating_point():
        return difference(a, b, 4 * epsilon)
    same = ((a == b) & (torch.signbit(a) == torch.signbit(b))) | (a.isnan() & b.isnan())
    return "" if bool(same.all()) else f"{int((~same).sum())} elements have other bits"


def _with_special_values(graph: TermGraph, old: int, new: int, seed: int) -> str:
    values = evaluate(graph, draw_inputs(graph, Drawing("special", "float32", False, seed)), "float32")
    problem = _otherwise(graph, old, new, values, EPSILON["float32"])
    return f"NaN, infinities or signed zeros: {problem}" if problem else ""


def _gradients(law: Law, graph: TermGraph, old: int, new: int, seed: int) -> str:
    """Gradients of both sides for one random cotangent, in float64."""
    inputs = draw_inputs(graph, Drawing("normal", "float64", False, seed))
    masks = [node.children[3] for node in graph.nodes if node.op == "sdpa" and len(node.children) > 3]
    fixed = set(graph.reachable(masks))  # the attention kernel has no gradient of its mask
    leaves = [v.requires_grad_() for n, v in inputs.items() if v.is_floating_point() and n not in fixed]
    values = evaluate(graph, inputs)
    if not values[old].requires_grad:
        return ""
    cotangent = torch.randn(values[old].shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    gradients = [
        torch.autograd.grad(
            values[side], leaves, cotangent, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for side in (old, new)
    ]
    # An unread element has the gradient 0, or 0 · ∞ if it is computed. All share one scale, because some are exactly 0.
    a, b = _where_both_are_finite(*(torch.cat([g.flatten() for g in side]) for side in gradients))
    problem = difference(a, b, 1e-9)
    return f"gradients {problem}" if problem else ""


def _where_both_are_finite(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    known = a.isfinite() & b.isfinite()
    return a[known], b[known]
