"""What guards take of a call: ``python -m bench.prices.guards mobilenet_v2 eqsat`` on an idle machine.

Dynamo reads the guards before each call, when the call before has emptied the cache of them. A model is compiled in one
variant, in this process, and timed with its guards and without them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch

from bench.models.known import case_of
from bench.speed.variants import VARIANTS, Inputs, Run

CALLS = 60


def call_ms(run: Run, inputs: Inputs) -> tuple[float, float]:
    """The fastest and the median time of a call in ms, of :data:`CALLS` calls after one."""
    run(*inputs)
    samples = []
    for _ in range(CALLS):
        start = time.perf_counter()
        run(*inputs)
        samples.append((time.perf_counter() - start) * 1e3)
    return min(samples), statistics.median(samples)


def main() -> int:
    """Compile a model, and print its times with guards and without."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", metavar="model")
    parser.add_argument("variant", choices=[name for name, v in VARIANTS.items() if v.family in ("inductor", "eqsat")])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    module, inputs = case_of(arguments.name).build()
    run = VARIANTS[arguments.variant].compiled(module, inputs)
    with torch.no_grad():
        guarded = call_ms(run, inputs)
        with torch.compiler.set_stance(skip_guard_eval_unsafe=True):
            bare = call_ms(run, inputs)
    tensors = sum(1 for _ in module.parameters()) + sum(1 for _ in module.buffers())
    print(
        f"{arguments.name} {arguments.variant}, {tensors} weights: {guarded[0]:.2f} ms ({guarded[1]:.2f}) with guards, "
        f"{bare[0]:.2f} ({bare[1]:.2f}) without"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
