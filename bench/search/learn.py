"""Learns which laws are useful, alone and together, from the models of ``make bench``; never from the paper's graphs.

Run as ``python -m bench.search.learn``. Writes torch_eqsat/search/statistics.json, which comes with the package and
directs the search (see torch_eqsat/search/actions.py).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from unittest import mock

import torch

from bench.models.cases import CASES
from bench.models.paper_graphs import captured, task_of
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.ir.program import Task
from torch_eqsat.rewrites import catalogue
from torch_eqsat.search.actions import STATISTICS
from torch_eqsat.search.environment import Environment
from torch_eqsat.search.limits import Limits
from torch_eqsat.search.regions import split_into_regions
from torch_eqsat.search.strategies.table import run_strategy

BATCHES = 6
LIMITS = Limits(nodes=8_000, seconds=20.0, simulations=64)


def tasks() -> Iterator[tuple[str, Task]]:
    """The distinct regions of all cases that can be captured without running them."""
    for name, case in CASES.items():
        try:
            # Weights are of no matter here, and cannot be made up without running the model.
            with mock.patch("bench.models.cases.randomize_batch_norms", lambda module, inputs: (module, inputs)):
                task = task_of(captured(case.build))
        except Exception as error:  # a model that looks at its values while it is traced
            print(f"{name}: left out, {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)
            continue
        distinct = {region.task.graph.digest(): region.task for region in split_into_regions(task)}
        yield from ((name, region) for region in distinct.values())


def main() -> None:
    """Search all regions, count, write."""
    parser = argparse.ArgumentParser(description="Learn which laws are useful from the models of the benchmark.")
    parser.add_argument("--seconds", type=float, default=math.inf, help="after which no further region is searched")
    end = time.monotonic() + parser.parse_args().seconds
    torch.manual_seed(0)
    laws = catalogue()
    matched: Counter[str] = Counter()
    useful: Counter[str] = Counter()
    together: Counter[frozenset[str]] = Counter()
    for name, task in tasks():
        if time.monotonic() > end:
            print(f"{name}: left out, out of time", flush=True)
            break
        environment = Environment(task, laws, Pricing(frozen=True), LIMITS)
        matched.update(environment.egraph.count_matches(laws))
        statistics, _ = run_strategy("mcts", environment)
        environment.close()
        if environment.best.cost < 0.999 * environment.base_cost:
            found = frozenset(environment.best.laws)
            useful.update(found)
            together[found] += len(found) > 1
        gain = 1 - environment.best.cost / environment.base_cost if environment.base_cost else 0.0
        print(f"{name:22}{len(task.graph):6} terms {100 * gain:6.2f} %  {statistics.stop}", flush=True)
    content = {
        "laws": {
            name: {"matched": max(matched[name], useful[name]), "useful": useful[name]}
            for name in sorted(matched | useful)
        },
        "batches": [sorted(batch) for batch, count in together.most_common(BATCHES) if count],
    }
    STATISTICS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
