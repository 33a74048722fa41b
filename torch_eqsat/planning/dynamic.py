"""Graphs with symbolic sizes: searched with numbers in place of the symbols, and rewritten with symbols.

What is found for numbers holds for all sizes where three checks say so: every result has the same size as before, as an
expression; no guard was added; and the judge finds both graphs equal at the sizes of now, at small ones and at others
that have nothing in common with those of the search. Where one says no the graph stays as it was.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import Graph

from torch_eqsat.cost.calibration import calibration_of
from torch_eqsat.cost.measure.kernels import context_of
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.cost.programs import captured_program, residency_of
from torch_eqsat.cost.table import open_table
from torch_eqsat.counters import count_refused_sizes
from torch_eqsat.errors import EqsatError, first_line
from torch_eqsat.graph.capture import capture
from torch_eqsat.graph.copies import copied, copy_of, undone_on_error
from torch_eqsat.graph.fold import fold_factories
from torch_eqsat.graph.rebuilding.symbolic import (
    Numbers,
    Static,
    carry_back,
    expressions_of,
    is_symbolic,
    symbols_of,
    with_numbers,
)
from torch_eqsat.ir.program import Task
from torch_eqsat.planning import pipeline
from torch_eqsat.planning.ranks import is_alone
from torch_eqsat.planning.setting import Setting
from torch_eqsat.planning.sizes import SMALLEST, UNLIKELY, environment_of, no_guards, other_sizes, primes_for, values_at
from torch_eqsat.planning.verdict import GraphInputs
from torch_eqsat.report import GraphReport
from torch_eqsat.rewrites import catalogue
from torch_eqsat.verification.judge import OriginalFaultError, disagreement

logger = logging.getLogger(__name__)

WIDE = 8
"""How many times larger the sizes are, beside the smallest ones, that prices are compared at."""
MARGIN, LEAST_MS = 0.05, 5e-3
"""By how much a program may be predicted to be slower at another size, relative and in ms: estimates are coarse, and a
call of the smallest compiled graph takes 0.02 to 0.05 ms."""
SLOWER = "it is predicted to take"
COMPARED = 3  # sizes at which both graphs are run
OF_ONE_SIZE = "winograd"
"""A family of laws that fill an image up to a multiple of a tile, which is another number for each size. They are left
out where an image has a symbolic size, and where what they made holds for one size alone; where only the batch is a
symbol it holds for all."""


def optimize(graph: Graph, setting: Setting, inputs: GraphInputs) -> GraphReport:
    """Rewrite ``graph`` in place, as :func:`torch_eqsat.planning.pipeline.optimize` does, also if it has symbolic
    sizes."""
    # Ranks may have other sizes, and would decide on other programs.
    if not is_symbolic(graph) or not is_alone():
        return pipeline.optimize(graph, setting, inputs)
    folded = fold_factories(graph, inputs.constants(graph)) if setting.frozen else 0  # those of static sizes
    options = replace(setting.options, disable=(*setting.options.disable, OF_ONE_SIZE))
    without = replace(setting, options=options, key=f"{setting.key} without {OF_ONE_SIZE}")
    chosen = without if _has_symbolic_images(graph) else setting
    try:
        report = _for_all_sizes(graph, chosen, inputs)
        if report.refused_sizes and _fills_tiles(report):
            chosen = without
            report = _for_all_sizes(graph, chosen, inputs)
        if report.refused_sizes and SLOWER not in report.refused_sizes:
            with contextlib.suppress(_OpaqueError):  # sizes so large are outside of the range of a symbol
                report = _for_all_sizes(graph, chosen, inputs, UNLIKELY)
        if report.refused_sizes:
            count_refused_sizes()
            logger.warning("%s", report.decision)
        return replace(report, folded=folded)
    except _OpaqueError as error:
        logger.info("symbolic sizes stay opaque: %s", error)
        report = pipeline.optimize(graph, setting, inputs)
        return replace(report, folded=report.folded + folded)


def _has_symbolic_images(graph: Graph) -> bool:
    """Whether a convolution makes an image whose size is a symbol; its batch may be one."""
    made = (n.meta["val"].shape[2:] for n in graph.nodes if n.target is torch.ops.aten.convolution.default)
    return any(isinstance(size, torch.SymInt) for sizes in made for size in sizes)


def _fills_tiles(report: GraphReport) -> bool:
    return any(law.family == OF_ONE_SIZE and law.name in report.laws for law in catalogue())


class _OpaqueError(EqsatError):
    """No numbers can stand for the symbols of a graph."""


def _for_all_sizes(graph: Graph, setting: Setting, inputs: GraphInputs, at_least: int = SMALLEST) -> GraphReport:
    try:
        with no_guards(environment_of(graph)):
            numbers = primes_for(graph, at_least)
            static = with_numbers(graph, numbers)
            known = replace(inputs, values=values_at(graph, numbers, inputs))
            made = {int(expression.xreplace(dict(numbers))) for expression in expressions_of(graph)}
            setting = replace(setting, symbolic=frozenset({*made, *numbers.values()} - {0, 1}))
    except Exception as error:  # an operator that takes no other sizes, a size that depends on data
        raise _OpaqueError(str(error)) from error
    with torch._guards.tracing(None), unset_fake_temporarily():  # the static graph has fake tensors of its own
        report = pipeline.optimize(static.graph, setting, known, folds=False)
    if not report.changed:
        return report
    if problem := _carried(graph, static, inputs, setting):
        decision = f"left as it is: what was found holds for some sizes alone ({problem})"
        return replace(report, changed=False, decision=decision, refused_sizes=problem)
    return replace(report, decision=f"{report.decision}, for all sizes (searched at {_list(numbers)})")


def _list(numbers: Numbers) -> str:
    return ", ".join(f"{symbol} = {number}" for symbol, number in numbers.items())


def _carried(graph: Graph, static: Static, inputs: GraphInputs, setting: Setting) -> str:
    """Rewrite ``graph`` as ``static`` was; why not, if it must not be."""
    environment = environment_of(graph)
    try:
        with no_guards(environment):
            trial, copies = copied(graph)
            original_of = {made: copies.get(old, trial.output_node()) for made, old in static.original_of.items()}
            carry_back(trial, replace(static, original_of=original_of))
            # Also where the user asks for no judge: nothing else shows a size that has become a number.
            if problem := _judged(graph, trial, static.numbers, inputs):
                return problem
            if problem := _slower(graph, trial, inputs, setting):
                return problem
        with undone_on_error(graph), no_guards(environment):
            carry_back(graph, static)
    except Exception as error:
        return first_line(error)
    return ""


def _judged(graph: Graph, rewritten: Graph, searched: Numbers, inputs: GraphInputs) -> str:
    """Why both graphs differ at some size; "" if they do not. Sizes that the original does not take are left out, but
    not those of now."""
    hints, compared = symbols_of(graph), 0
    # Of copies: a module takes the graph that it is made of away from its own.
    first, second = (copy_of(g).owning_module for g in (graph, rewritten))
    for numbers in other_sizes(graph, searched):
        values = values_at(graph, numbers, inputs, drawn=numbers != hints)
        try:
            # Hard inputs were tried on the static graphs.
            problem = disagreement(first, second, values, inputs.live(len(values)), seconds=0.0)
        except OriginalFaultError as error:
            problem = f"it cannot be checked: {error}" if numbers == hints else ""
        else:
            compared += 1
        if problem:
            return f"{problem} at {_list(numbers)}"
        if compared == COMPARED:
            break
    return "" if compared > 1 else "no other size could be tried"


def _slower(graph: Graph, rewritten: Graph, inputs: GraphInputs, setting: Setting) -> str:
    """At which size the rewritten graph is predicted to be slower, of the smallest ones, those of now, and eight times
    of them: there is one program for all. Nothing was measured there, so that both graphs are priced by estimates."""
    environment, hints = environment_of(graph), symbols_of(graph)
    least = {symbol: environment.bound_sympy(symbol).lower for symbol in hints}
    small = {symbol: max(2, int(n)) if n.is_Integer else 2 for symbol, n in least.items()}  # a number has no least one
    large = {symbol: WIDE * hint for symbol, hint in hints.items()}
    for numbers in (small, hints, large):
        if any(number not in environment.bound_sympy(symbol) for symbol, number in numbers.items()):
            continue
        try:
            captured = with_numbers(graph, numbers).graph
        except Exception as error:  # the graph does not take these sizes
            logger.debug("prices are not compared at %s: %s", _list(numbers), first_line(error))
            continue
        both = captured, with_numbers(rewritten, numbers).graph
        before, after = (estimated_ms(g, setting, inputs) for g in both)
        if after > (1 + MARGIN) * before + LEAST_MS:
            return f"at {_list(numbers)} {SLOWER} {after:.4f} ms in place of {before:.4f}"
    return ""


def estimated_ms(graph: Graph, setting: Setting, inputs: GraphInputs) -> float:
    """What a graph of static sizes takes by estimates alone (ms)."""
    table = open_table(context_of(torch.device(setting.device).type))
    known = calibration_of(table)
    with torch._guards.tracing(None), unset_fake_temporarily():
        captured = capture(graph, inputs.constants(graph))
    task = Task(captured.graph, captured.parts)
    pricing = Pricing(
        setting.frozen,
        setting.device,
        setting.threads,
        coefficients=known.coefficients,
        residency=residency_of(task, frozen=setting.frozen),
        epilogues=setting.device == "cpu" and setting.frozen,
        whole=True,
        roofline=known.roofline,
        tiles=setting.tiles and setting.frozen and setting.device == "cpu",
    )
    return captured_program(task, pricing).cost
