"""Models with a symbolic batch or length: one program for all sizes, timed at each of them beside Inductor's.

Run as ``python -m bench.prices.dynamic`` (or ``make bench-dynamic``) on an idle machine. Each variant is a process of
its own, compiled once at the first size; they are timed in turn. A row also says how many graphs were compiled. Writes
bench/results/dynamic.json; the status is 1 when a model is slower at some size.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.models.known import case_of
from bench.speed.process import VariantError, VariantProcess
from bench.speed.variant import own_stdout, relative_error, reply, timed
from bench.speed.variants import VARIANTS, Inputs
from torch_eqsat.report import last_reports

RESULTS = Path(__file__).parents[2] / "bench" / "results" / "dynamic.json"
BATCHES, LENGTHS, ROWS = (8, 2, 3, 5, 13, 16), (64, 2, 17, 32, 100, 128), (256, 16, 77, 100, 500, 512)
ROUNDS, ROUND_MS, MOST_CALLS = 6, 100.0, 300
SLOWER = 0.98


@dataclass(frozen=True)
class Sized:
    """A known case whose inputs have a symbolic axis; the model is compiled at the first of ``sizes``. ``trained`` says
    whether a step is the forward and the backward of a sum of squares."""

    dim: int
    sizes: tuple[int, ...]
    trained: bool = False


SUITE = {
    "causal_lm": Sized(1, LENGTHS),
    "smollm": Sized(1, LENGTHS),
    "pythia": Sized(1, LENGTHS),
    "bert_classifier": Sized(1, LENGTHS),
    "lora_bert": Sized(1, LENGTHS),
    "linear_attention": Sized(2, ROWS),
    "linear_768_3072_768": Sized(0, ROWS),
    "mean_of_linear": Sized(0, BATCHES),
    "repvgg_a0": Sized(0, BATCHES),
    "resnet50": Sized(0, BATCHES),
    "densenet121": Sized(0, BATCHES),
    "lstm_loop": Sized(0, BATCHES),
    "linear_768_64_768": Sized(0, ROWS, trained=True),
}


def resized(inputs: Inputs, dim: int, size: int) -> Inputs:
    """``inputs``, cut or repeated along the axis ``dim``; those that have no such axis as they are."""
    whole = inputs[0].shape[dim]

    def one(x: Tensor) -> Tensor:
        if x.dim() <= dim or x.shape[dim] != whole:
            return x
        return x.index_select(dim, torch.arange(size) % whole)

    return tuple(map(one, inputs))


def step_of(run: Callable[..., Any], inputs: Inputs, *, trained: bool) -> Callable[[], Tensor]:
    """A call of ``run``: its first result, or the gradient of a sum of squares by its first input."""

    def result() -> Tensor:
        made = run(*inputs)
        return made if isinstance(made, Tensor) else made[0]

    def gradient() -> Tensor:
        leaf = inputs[0].requires_grad_()
        (found,) = torch.autograd.grad(result().square().sum(), leaf)
        return found

    return gradient if trained else result


def serve(name: str, variant: str) -> None:
    """Compile a model and run it at all sizes, say how that went, and obey lines ``SIZE COUNT`` until ``quit``."""
    from torch._dynamo.utils import counters

    replies = own_stdout()
    torch.set_num_threads(1)
    sized = SUITE[name]
    module, inputs = case_of(name).build()
    compiled = VARIANTS[variant].compiled(module, inputs)
    error, calls = 0.0, {}
    with torch.set_grad_enabled(sized.trained):
        for size in sized.sizes:
            given = resized(inputs, sized.dim, size)
            for x in given:
                if x.dim() > sized.dim and x.shape[sized.dim] == size:
                    torch._dynamo.maybe_mark_dynamic(x, sized.dim)
            calls[size] = step_of(compiled, given, trained=sized.trained)
            eager = step_of(module, given, trained=sized.trained)
            error = max(error, relative_error(calls[size](), eager()))
        reply(replies, {"error": error, "graphs": counters["stats"]["unique_graphs"], "rewritten": rewritten()})
        for line in sys.stdin:
            if line.strip() == "quit":
                return
            size, count = map(int, line.split())
            reply(replies, timed(calls[size], count))


def rewritten() -> str:
    """What the search made of the graphs of this process, in a line each; "" without our backend."""
    return "; ".join(report.decision for report in last_reports())


def measured(name: str) -> dict[str, Any]:
    """The row of a model: of each size minima and medians in ms of both variants, asked in turn."""
    sized = SUITE[name]
    variants = ("default", "eqsat_nofreeze") if sized.trained else ("freezing", "eqsat")
    with tempfile.TemporaryDirectory(prefix="eqsat-dynamic-") as folder:
        processes = [
            VariantProcess(name, v, {}, Path(folder) / f"{v}.log", program="bench.prices.dynamic") for v in variants
        ]
        try:
            ready = [process.ready() for process in processes]
            row = {"name": name, "error": ready[1]["error"], "decision": ready[1]["rewritten"]}
            row["graphs"] = [r["graphs"] for r in ready]
            row["sizes"] = {size: at_size(processes, size) for size in sized.sizes}
        except VariantError as error:
            return {"name": name, "problem": str(error).strip().splitlines()[-1][:300]}
        finally:
            for process in processes:
                process.close()
    return row


def at_size(processes: list[VariantProcess], size: int) -> dict[str, float]:
    """The fastest calls and the medians at one size."""
    samples: list[list[float]] = [[], []]
    calls = [max(1, min(MOST_CALLS, round(ROUND_MS / max(p.ask(f"{size} 3")[-1], 1e-3)))) for p in processes]
    for number in range(ROUNDS):
        for i in (0, 1) if number % 2 == 0 else (1, 0):
            samples[i] += processes[i].ask(f"{size} {calls[i]}")
    (inductor_min, eqsat_min), (inductor, eqsat) = map(min, samples), map(statistics.median, samples)
    return {"inductor_ms": inductor_min, "eqsat_ms": eqsat_min, "inductor_median": inductor, "eqsat_median": eqsat}


def ratios(row: dict[str, Any]) -> dict[int, float]:
    """By size, how many times as fast as Inductor: by the fastest calls or the medians, whichever is better for us."""
    return {
        int(size): max(at["inductor_ms"] / at["eqsat_ms"], at["inductor_median"] / at["eqsat_median"])
        for size, at in row.get("sizes", {}).items()
    }


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    if "problem" in row:
        return f"{row['name']}: {row['problem']}"
    sizes = "  ".join(f"{size}: {ratio:.2f}x" for size, ratio in ratios(row).items())
    ours, theirs = row["graphs"][1], row["graphs"][0]
    return f"{row['name']:<20} {sizes}  graphs {ours} ({theirs}), error {row['error']:.1e}, {row['decision'][:60]}"


def main() -> int:
    """Time the models, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="model", help=f"of {', '.join(SUITE)}")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if len(arguments.names) == 2 and arguments.names[1] in VARIANTS:  # what each of the processes is asked for
        serve(*arguments.names)
        return 0
    if unknown := set(arguments.names) - SUITE.keys():
        parser.error(f"unknown models {', '.join(sorted(unknown))}; they are {', '.join(SUITE)}")
    rows = []
    for name in arguments.names or SUITE:
        rows.append(measured(name))
        print(line(rows[-1]), flush=True)
        arguments.results.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return int(any(ratio < SLOWER for row in rows for ratio in ratios(row).values()))


if __name__ == "__main__":
    sys.exit(main())
