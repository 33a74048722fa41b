"""Drawn models at many sizes, beside Inductor without us: right at each of them, and no compilation or guard more.

Run as ``python -m bench.prices.sizes --models 200`` (or ``make bench-sizes``). A model runs live, frozen or trained,
and torch makes its sizes symbolic by itself as batches go by, or is told to (``dynamic=True``): one of these six ways
by its seed, or all with ``--all``. Graphs are run call by call, without code, also in the run to compare with, which
has all of Inductor's passes but ours. With ``--drawn`` programs are drawn from the e-graphs at random costs, which
rewrites more than a search does. Prints what differs; the status is 1 if anything does. ``--seed N --models 1`` repeats
one.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._guards import TracingContext
from torch._inductor.compile_fx import compile_fx
from torch.utils._pytree import tree_flatten

from bench.models.sized_models import SizedModel, Sizes
from bench.trust.in_process import brief, searching_here
from torch_eqsat.backend import eqsat_mcts_eager, reset
from torch_eqsat.planning import dynamic
from torch_eqsat.planning.inductor.interpreting import SETTINGS, interpret
from torch_eqsat.report import last_reports

WAYS = tuple((symbolic, way) for symbolic in (None, True) for way in ("live", "frozen", "trained"))
BATCHES = (1, 2, 3, 5, 8, 13)
TOKENS = ((7, 5), (2, 3), (3, 17), (13, 2), (5, 64), (1, 5), (8, 1), (1, 1), (0, 5), (4, 0))
IMAGES = ((3, 9, 8), (2, 7, 13), (5, 8, 8), (7, 3, 16), (1, 8, 9), (0, 8, 8))
LENGTH, IMAGE = 6, (9, 8)  # where only the batch changes
OPTIONS = {
    "eqsat.deterministic": True,
    "eqsat.seconds": 0.5,
    "eqsat.nodes": 1500,
    "eqsat.min_saving": 0.0,
    "eqsat.cache": False,
    "eqsat.strict": True,
}
RELATIVE, ABSOLUTE = 1e-3, 1e-4
"""Of a result and of its largest element: what reassociated sums may differ by here."""


@dataclass
class Ran:
    """What a model gave at each size, in how many compilations, and their guards on sizes."""

    results: list[Any] = field(default_factory=list)
    graphs: list[int] = field(default_factory=list)
    environments: list[Any] = field(default_factory=list)

    @property
    def guards(self) -> list[list[str]]:
        """The guards of each compilation that are there at the end, in words."""
        return [sorted({str(guard.expr) for guard in e.guards}) if e else [] for e in self.environments]


def stock(module: Any, inputs: Any, *, options: dict[str, Any]) -> Any:
    """Inductor without our pass and without code."""
    return compile_fx(module, inputs, inner_compile=interpret, config_patches={**SETTINGS, **options})


def ours(module: Any, inputs: Any, *, options: dict[str, Any]) -> Any:
    """The backend that is looked at."""
    return eqsat_mcts_eager(module, inputs, options={**OPTIONS, **options})


def run_at(model: SizedModel, sizes: tuple[Sizes, ...], way: str, symbolic: bool | None, backend: Any) -> Ran:
    """``model`` compiled by ``backend`` and called at each of ``sizes``; an error stands for its result. ``backend``
    None is eager."""
    ran = Ran()

    def counted(module: Any, inputs: Any, **options: Any) -> Any:
        context = TracingContext.try_get()
        mode = context.fake_mode if context else None
        ran.environments.append(mode.shape_env if mode else None)
        return backend(module, inputs, options={"freezing": way == "frozen"})

    torch.compiler.reset()
    reset()  # torch does not know the backend within `counted`
    called = model.module if backend is None else torch.compile(model.module, backend=counted, dynamic=symbolic)
    for size in sizes:
        x = model.input(size)
        torch.manual_seed(0)
        try:
            ran.results.append(result_of(called, x, model, way))
        except Exception as error:
            ran.results.append(error)
        ran.graphs.append(len(ran.environments))
    return ran


def result_of(called: Callable[[Tensor], Any], x: Tensor, model: SizedModel, way: str) -> list[Any]:
    """The results of a call; of a trained model, those and the gradients of the sum of their squares."""
    if way != "trained":
        with torch.no_grad():
            return list(tree_flatten(called(x))[0])
    x.requires_grad_()
    found = tree_flatten(called(x))[0]
    variables = [x, *model.module.parameters()]
    loss = sum(y.square().sum() for y in found if isinstance(y, Tensor))
    return [*found, *torch.autograd.grad(loss, variables, allow_unused=True)]


def difference(actual: Any, expected: Any) -> str:
    """How the result of a call differs from eager's, in words; "" if it does not."""
    if isinstance(actual, Exception) or isinstance(expected, Exception):
        same = isinstance(actual, Exception) and isinstance(expected, Exception)
        return "" if same else f"{say(actual)} in place of {say(expected)}"
    for a, b in zip(actual, expected, strict=True):
        if not isinstance(b, Tensor):
            if a != b:
                return f"{a} in place of {b}"
            continue
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"{a.dtype} {list(a.shape)} in place of {b.dtype} {list(b.shape)}"
        scale = float(b.detach().abs().nan_to_num(0.0, 0.0, 0.0).max()) if b.numel() else 0.0
        if not torch.allclose(a, b, RELATIVE, ABSOLUTE * max(scale, 1.0), equal_nan=True):
            return f"off by {float((a - b).detach().abs().max()):.3g}, the largest element is {scale:.3g}"
    return ""


def say(result: Any) -> str:
    """A result in a few words."""
    return brief(result) if isinstance(result, Exception) else "a result"


def problems_of(model: SizedModel, way: str, symbolic: bool | None) -> tuple[list[str], list[str]]:
    """What is wrong with a model in one way, and the decisions on its graphs. Sizes at which stock Inductor itself
    differs from eager are left out."""
    sizes = sizes_of(model, symbolic)
    expected = run_at(model, sizes, way, symbolic, None)
    theirs = run_at(model, sizes, way, symbolic, stock)
    found = run_at(model, sizes, way, symbolic, ours)
    decisions = [report.decision for report in last_reports()]
    problems = []
    for size, actual, other, wanted in zip(sizes, found.results, theirs.results, expected.results, strict=True):
        if not difference(other, wanted) and (problem := difference(actual, wanted)):
            problems.append(f"{size}: {problem}")
    if found.graphs != theirs.graphs:
        problems.append(f"{found.graphs} compilations in place of {theirs.graphs}")
    elif found.guards != theirs.guards:
        problems.append(f"guards {found.guards} in place of {theirs.guards}")
    return problems, decisions


def sizes_of(model: SizedModel, symbolic: bool | None) -> tuple[Sizes, ...]:
    """The sizes to run a model at; where torch finds out by itself only the batch changes."""
    if symbolic:
        return IMAGES if model.images else TOKENS
    rest = IMAGE if model.images else (LENGTH,)
    return tuple((batch, *rest) for batch in BATCHES)


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Programs that are drawn, and taken whatever they are predicted to cost at other sizes."""
    with searching_here(seed), mock.patch.object(dynamic, "MARGIN", math.inf):
        yield


def main() -> None:
    """Run models; the status is 1 when something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the first (default: %(default)s)")
    parser.add_argument("--drawn", action="store_true", help="take programs at random costs")
    parser.add_argument("--all", action="store_true", help="run each model in all ways")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("torch_eqsat").setLevel(logging.ERROR)
    wrong, decided, refused = 0, Counter[str](), Counter[str]()
    for seed in range(arguments.seed, arguments.seed + arguments.models):
        model = SizedModel(seed)
        for symbolic, way in WAYS if arguments.all else [WAYS[seed % len(WAYS)]]:
            with drawing(seed) if arguments.drawn else searching_here(None):
                problems, decisions = problems_of(model, way, symbolic)
            for problem in problems:
                print(f"seed {seed}, {way}, dynamic={symbolic}: {problem}", flush=True)
            wrong += bool(problems)
            decided.update(map(kind_of, decisions))
            refused.update(d.partition("(")[2][:70] for d in decisions if "some sizes alone" in d)
    print(f"{arguments.models} models, {wrong} differ; graphs: {dict(decided)}")
    for reason, count in refused.most_common():
        print(f"  {count:4d} {reason}")
    sys.exit(wrong > 0)


def kind_of(decision: str) -> str:
    """A decision without its numbers."""
    kind = decision.partition("(")[0].partition(",")[0].strip()
    return f"{kind} for all sizes" if "for all sizes" in decision else kind


if __name__ == "__main__":
    main()
