"""One model of the zoo, run in a process of its own: see bench/trust/zoo.py."""

from __future__ import annotations

import argparse
import copy
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bench.models.zoo_models import make, samples, without_dropout
from bench.trust.in_process import brief, searching_here
from torch_eqsat import report as reports
from torch_eqsat.verification.guard import difference

OPTIONS = {
    "eqsat.deterministic": True,
    "eqsat.min_saving": 0.0,
    "eqsat.nodes": 2000,
    "eqsat.seconds": 1.0,
    "eqsat.simulations": 8,
    "eqsat.cache": False,
    "eqsat.strict": True,
}


def compute(model: nn.Module, function: Callable[..., Any], x: Tensor, training: bool) -> list[Any]:
    """Results, in training the gradients of all parameters, and the buffers that were written, which are set back."""
    held = list(model.buffers())
    before = [buffer.clone() for buffer in held]
    try:
        made = _results(model, function, x, training)
        return [*made, *(buffer.clone() for buffer in held)]
    finally:
        with torch.no_grad():
            for buffer, value in zip(held, before, strict=True):
                buffer.copy_(value)


def _results(model: nn.Module, function: Callable[..., Any], x: Tensor, training: bool) -> list[Any]:
    torch.manual_seed(0)
    model.train(training)
    if not training:
        with torch.no_grad():
            return list(tree_leaves(function(x)))
    results = [y for y in tree_leaves(function(samples(x))) if isinstance(y, Tensor)]
    parameters = [p for p in model.parameters() if p.requires_grad]
    loss = sum((y.float().square().mean() for y in results if y.is_floating_point()), torch.zeros(()))
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [*(y.detach() for y in results), *gradients]


@dataclass(frozen=True)
class Reference:
    """A model's results in eager, and by float64 (None where a kernel does not take it); with ``training`` also its
    gradients."""

    eager: list[Any]
    exact: list[Any]

    @staticmethod
    def of(model: nn.Module, x: Tensor, training: bool) -> Reference:
        """Runs the model twice."""
        eager = compute(model, model, x, training)
        wide = copy.deepcopy(model).double()
        try:
            exact = compute(wide, wide, x.double() if x.is_floating_point() else x, training)
        except RuntimeError:  # a kernel of one dtype, or a model that makes tensors of its own
            exact = [None] * len(eager)
        return Reference(eager, exact)

    def difference_of(self, actual: list[Any]) -> str:
        """What is wrong with the first of ``actual`` that is; "" if nothing is."""
        for number, (found, exact, own) in enumerate(zip(actual, self.exact, self.eager, strict=True)):
            if problem := difference(found, exact, own if own is not None else found):
                return f"output {number} {problem}"
        return ""


def rows(name: str, modes: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of one model, a mode each."""
    try:
        model, x = make(name)
        without_dropout(model)
        references = {training: Reference.of(model, x, training) for training in {mode == "training" for mode in modes}}
    except Exception as error:
        yield from [{"outcome": "no model", "reason": brief(error), "seconds": 0.0}] * len(modes)
        return
    for mode in modes:
        torch.compiler.reset()
        start = time.monotonic()
        row = run(model, x, mode, references[mode == "training"])
        yield row | {"seconds": round(time.monotonic() - start, 1)}


def run(model: nn.Module, x: Tensor, mode: str, reference: Reference) -> dict[str, Any]:
    """The row of one model in one mode."""
    training = mode == "training"
    options = {**OPTIONS, "freezing": mode == "frozen"}
    try:
        with searching_here(None):
            compiled = torch.compile(model, backend="eqsat_mcts_eager", options=options, dynamic=False)
            actual = compute(model, compiled, x, training)
    except Exception as error:
        reason = brief(error)
        if "MemoryError" in reason or "alloc" in reason:
            return {"outcome": "memory", "reason": reason}
        return {"outcome": "fault" if without_laws(model, x, training) else "no model", "reason": reason}
    made = reports.last_reports()
    facts = {
        "graphs": len(made),
        "rewritten": sum(report.changed for report in made),
        "decisions": [report.decision[:120] for report in made],
        "predicted_ms": [round(sum(r.base_ms for r in made), 4), round(sum(r.best_ms for r in made), 4)],
        "search_s": round(sum(report.search_seconds for report in made), 2),
        "laws": sorted({law for report in made if report.changed for law in report.laws}),
    }
    if problem := reference.difference_of(actual):
        torch.compiler.reset()
        alone = torch.compile(model, backend="aot_eager_decomp_partition", dynamic=False)
        torchs = bool(reference.difference_of(compute(model, alone, x, training)))
        return {"outcome": "wrong without us" if torchs else "wrong", "reason": problem, **facts}
    refused = [report.decision for report in made if "refused" in report.decision]
    return {"outcome": "refused" if refused else "ok", "reason": "; ".join(refused)[:300], **facts}


def without_laws(model: nn.Module, x: Tensor, training: bool) -> bool:
    """Whether the model compiles with torch's own backend that generates no code."""
    torch.compiler.reset()
    try:
        compute(model, torch.compile(model, backend="aot_eager_decomp_partition", dynamic=False), x, training)
    except Exception:
        return False
    return True


def main() -> None:
    """Print the rows as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.trust.zoo_run", description=__doc__)
    parser.add_argument("model", metavar="SOURCE:NAME")
    parser.add_argument("modes", nargs="+", metavar="MODE", help="those of bench.trust.zoo")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for row in rows(given.model, given.modes):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
