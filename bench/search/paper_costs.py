"""Measures the operators of the paper's graphs, and those that searches of them meet, one at a time.

Run as ``python -m bench.search.paper_costs``. What the table has is not measured again; the table is
bench/results/paper_costs.json. The strategies are run a few times to learn which operators they meet.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from bench.models.paper_graphs import GRAPHS, captured, task_of
from bench.search.standalone import TABLE, Operation, Standalone, load_table, standalone
from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.measure.kernels import context_of, measure
from torch_eqsat.cost.measure.timer import CpuTimer
from torch_eqsat.graph.capture import Call, Operand
from torch_eqsat.graph.emitter import Evaluator, torch_dtype
from torch_eqsat.graph.lowering import lower
from torch_eqsat.ir.types import TensorType
from torch_eqsat.rewrites import catalogue
from torch_eqsat.search.environment import Environment
from torch_eqsat.search.limits import Limits
from torch_eqsat.search.strategies.table import run_strategy

ROUNDS = 4
LEARNING = (
    ("mcts", 2000),
    ("mcts", 10_000),
    ("saturation", 2000),
    ("saturation", 10_000),
    ("substitution", 2000),
    ("paper", 2000),
)


def call_of(operation: Operation, calls: Mapping[str, Call]) -> Callable[[], Any]:
    """A function without arguments that runs the operation on random data."""
    operands = [_tensor(type_) for type_ in operation.types]
    node = operation.node
    if node.op not in ("fx", "pointwise"):
        return lambda: lower(Evaluator(), node, operands, operation.types)
    call = calls[node["uid"]]

    def value(argument: Any) -> Any:
        if isinstance(argument, Operand):
            return operands[argument.index]
        if isinstance(argument, (list, tuple)):
            return type(argument)(value(item) for item in argument)
        return argument

    arguments = value(list(call.args))
    keywords = {name: value(item) for name, item in call.kwargs.items()}
    return lambda: call.target(*arguments, **keywords)


def _tensor(type_: TensorType) -> torch.Tensor:
    if not type_.is_floating:
        return torch.zeros(type_.shape, dtype=torch_dtype(type_.dtype))
    block = torch.randn(min(type_.numel, 1 << 16))
    return block.repeat(math.ceil(type_.numel / block.numel()))[: type_.numel].reshape(type_.shape)


def lacking_of(
    times: Mapping[str, float], tasks: Mapping[str, Any], seconds: float, strategies: Collection[str]
) -> Standalone:
    """What searches of all tasks meet that the table lacks."""
    lacking = standalone(times)
    for task in tasks.values():
        for strategy, nodes in LEARNING:
            if strategy not in strategies:
                continue
            pricing = standalone(times)
            environment = Environment(task, catalogue(), pricing, Limits(nodes, seconds))
            run_strategy(strategy, environment)
            environment.close()
            lacking.lacking |= pricing.lacking
            lacking.missing |= pricing.missing
    return lacking


def measure_lacking(lacking: Standalone, calls: Mapping[str, Call], times: dict[str, float]) -> None:
    """Measure and add to ``times``; what cannot run is left out."""
    timer = CpuTimer()
    wanted: list[Operation | Kernel] = [*lacking.lacking.values(), *lacking.missing.values()]
    for number, item in enumerate(wanted):
        try:
            with torch.no_grad():
                measured = measure(item, timer) if isinstance(item, Kernel) else timer.time([call_of(item, calls)])
        except Exception as error:
            print(f"not measured: {item.key}: {str(error).splitlines()[0]}", flush=True)
            continue
        times[item.key] = round(measured.ms, 7)
        if number % 200 == 199:
            store(times)
            print(f"{number + 1} of {len(wanted)} measured", flush=True)
    store(times)


def store(times: Mapping[str, float]) -> None:
    """Write the table."""
    machine = context_of("cpu")
    content = {
        "machine": machine.cpu,
        "threads": machine.threads,
        "torch": torch.__version__,
        "ms": dict(sorted(times.items())),
    }
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")


def main() -> None:
    """Measure in rounds: new prices lead searches to new operators."""
    parser = argparse.ArgumentParser(description="Measure the operators of the paper's graphs one at a time.")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each search (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    names = list(dict.fromkeys(strategy for strategy, _ in LEARNING))
    parser.add_argument("--strategies", nargs="+", choices=names, default=names, help="whose searches to follow")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    captures = {name: captured(make) for name, make in GRAPHS.items()}
    calls = {uid: call for found in captures.values() for uid, call in found.calls.items()}
    tasks = {name: task_of(found) for name, found in captures.items()}
    times = load_table()
    for number in range(arguments.rounds):
        start = time.monotonic()
        lacking = lacking_of(times, tasks, arguments.seconds, arguments.strategies)
        count = len(lacking.lacking) + len(lacking.missing)
        print(f"round {number + 1}: {count} operators to measure ({time.monotonic() - start:.0f} s)", flush=True)
        if not count:
            break
        measure_lacking(lacking, calls, times)


if __name__ == "__main__":
    main()
