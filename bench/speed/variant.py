"""One variant of one case in a process of its own: ``python -m bench.speed.variant CASE VARIANT``.

Two variants in one process would share Dynamo's code cache and time the same code, and freezing is a global setting.
The process compiles, compares with eager, says what it found as one line of JSON, and then obeys lines of input:
``time N`` runs N calls and answers their milliseconds as JSON, ``quit`` ends it. Everything else that is printed goes
to the standard error.
"""

from __future__ import annotations

import argparse
import copy
import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from bench.models.cases import Case
from bench.models.known import KNOWN, case_of
from bench.speed.variants import VARIANTS, threads

_WARM_UP_S = 0.5
# So small that thousands of steps leave the numbers of a model where they are.
_LEARNING_RATE = 1e-6
Call = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Ready:
    """What a variant found before it was timed.

    Errors are relative to the largest element of the reference: ``error`` against eager, ``error_fp64`` against eager
    in double precision, which eager itself misses by ``eager_error_fp64``. ``call_ms`` is a first estimate.
    ``predicted_base_ms`` and ``predicted_best_ms`` are what eqsat expected of the graphs as captured and as they run
    (0 for the others).
    """

    compile_s: float
    search_s: float
    error: float
    error_fp64: float
    eager_error_fp64: float
    call_ms: float
    predicted_base_ms: float = 0.0
    predicted_best_ms: float = 0.0


def main() -> None:
    """Serve one variant until told to quit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "case", help=f"a name of bench.models.known.case_of, such as drawn-17-live or one of {', '.join(KNOWN)}"
    )
    parser.add_argument("variant", choices=VARIANTS)
    arguments = parser.parse_args()
    replies = own_stdout()
    torch.set_num_threads(threads())
    try:
        case = case_of(arguments.case)
    except ValueError as error:
        parser.error(str(error))
    with torch.set_grad_enabled(case.training):
        call, ready = prepare(case, arguments.variant)
        reply(replies, asdict(ready))
        serve(call, sys.stdin, replies)


def prepare(case: Case, variant: str) -> tuple[Call, Ready]:
    """Compile the case, compare it with eager, warm it up."""
    module, inputs = case.build()
    run = _gradients if case.training else _outputs
    eager = run(copy.deepcopy(module), inputs)
    exact = run(copy.deepcopy(module).double(), _in_double(inputs))
    start = time.perf_counter()
    compiled = VARIANTS[variant].compiled(module, inputs)
    output = run(compiled, inputs, module)
    compile_s = time.perf_counter() - start
    errors = largest_error(output, eager), largest_error(output, exact), largest_error(eager, exact)
    search_s, *predicted = _reported() if VARIANTS[variant].family == "eqsat" else (0.0, 0.0, 0.0)
    call = _training_step(compiled, module, inputs) if case.training else lambda: compiled(*inputs)
    return call, Ready(compile_s, search_s, *errors, _warm_up(call), *predicted)


def _outputs(compiled: Callable[..., Any], inputs: tuple[Tensor, ...], module: nn.Module | None = None) -> list[Tensor]:
    output = compiled(*inputs)
    return [output] if isinstance(output, Tensor) else list(output)


def _gradients(compiled: Any, inputs: tuple[Tensor, ...], module: nn.Module | None = None) -> list[Tensor]:
    """The loss, and the gradients of all parameters as one vector: some are nothing but rounding of a true zero, such
    as that of an attention's key biases, and would differ without bound alone."""
    loss = compiled(*inputs)
    loss.backward()
    parameters = list((compiled if module is None else module).parameters())
    gradients = [p.grad.detach().flatten() for p in parameters if p.grad is not None]
    for parameter in parameters:
        parameter.grad = None
    return [loss.detach(), torch.cat(gradients)]


def _training_step(compiled: Callable[..., Any], module: nn.Module, inputs: tuple[Tensor, ...]) -> Call:
    optimizer = torch.optim.SGD(module.parameters(), lr=_LEARNING_RATE)

    def step() -> None:
        optimizer.zero_grad()
        compiled(*inputs).backward()
        optimizer.step()

    return step


def largest_error(outputs: list[Tensor], references: list[Tensor]) -> float:
    """The largest ``relative_error``; infinite for another number of outputs."""
    if len(outputs) != len(references):
        return float("inf")
    return max(relative_error(output, reference) for output, reference in zip(outputs, references, strict=True))


def relative_error(output: Tensor, reference: Tensor) -> float:
    """The largest difference relative to the largest element of ``reference``; infinite for another shape or NaN."""
    if output.shape != reference.shape:
        return float("inf")
    error = float((output.double() - reference.double()).abs().max() / reference.double().abs().max())
    return error if error == error else float("inf")


def serve(call: Call, requests: TextIO, replies: TextIO) -> None:
    """Obey ``time N`` and ``quit``, a line each, until the input ends."""
    for line in requests:
        match line.split():
            case ["time", count]:
                reply(replies, timed(call, int(count)))
            case ["quit"]:
                return
            case _:
                raise ValueError(f"neither 'time N' nor 'quit': {line!r}")


def timed(call: Call, count: int) -> list[float]:
    """The milliseconds of each of ``count`` calls, with the garbage collector at rest."""
    gc.collect()
    gc.disable()
    samples = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        samples.append((time.perf_counter() - start) * 1e3)
    gc.enable()
    return samples


def _warm_up(call: Call) -> float:
    """Run until half a second has passed, three calls at least; the fastest, in ms."""
    samples = timed(call, 3)
    deadline = time.perf_counter() + _WARM_UP_S
    while time.perf_counter() < deadline:
        samples += timed(call, 1)
    return min(samples)


def _in_double(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x.double() if x.is_floating_point() else x for x in inputs)


def _reported() -> tuple[float, float, float]:
    """Of all graphs together: the seconds of the search, and the predicted ms as captured and as they run."""
    reports = importlib.import_module("torch_eqsat.report").last_reports()
    return (
        sum(report.search_seconds for report in reports),
        sum(report.base_ms for report in reports),
        sum(report.best_ms if report.changed else report.base_ms for report in reports),
    )


def own_stdout() -> TextIO:
    """The standard output for the replies alone: what anyone else prints goes to the standard error from now on."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return replies


def reply(replies: TextIO, value: Any) -> None:
    print(json.dumps(value), file=replies, flush=True)


if __name__ == "__main__":
    main()
