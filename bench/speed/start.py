"""How long a first call takes: in a process with empty caches, and in the next ones.

Run as ``python -m bench.speed.start`` (or ``make bench-start``) on an idle machine. Each start is a process of its own;
variants are asked in turn, and share no cache. Seconds are those of the first call, with importing torch and building
the model apart: by the wall, and by the processor's time of the process itself. Writes bench/results/start.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.models.known import case_of
from bench.speed.variants import VARIANTS

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results" / "start.json"
CASES = ("resnet18", "vgg19", "densenet121", "inception_v3", "vae_decoder", "mobileone_s0", "bert_base", "causal_lm")
COMPARED = ("default", "freezing", "eqsat")
LIMIT_S = 1800.0


def start(name: str, variant: str) -> dict[str, Any]:
    """The first call of a model in this process: seconds, and what was read from caches or measured."""
    import torch
    from torch._dynamo.utils import counters

    torch.set_num_threads(1)
    case = case_of(name)
    module, inputs = case.build()
    compiled = VARIANTS[variant].compiled(module, inputs)
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.set_grad_enabled(case.training):
        compiled(*inputs)
    found = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    return found | {"code_from_cache": counters["inductor"]["fxgraph_cache_hit"], "ours": dict(counters["eqsat_mcts"])}


def started(name: str, variant: str, folder: Path) -> dict[str, Any]:
    """A start in a process of its own, with its caches in ``folder``. Raises CalledProcessError where it fails."""
    caches = {"TORCH_EQSAT_CACHE_DIR": str(folder / "plans"), "TORCHINDUCTOR_CACHE_DIR": str(folder / "code")}
    command = [sys.executable, "-m", "bench.speed.start", name, "--variant", variant]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **caches}, capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measured(name: str, warm: int) -> dict[str, Any]:
    """A row: of each variant a cold start, and ``warm`` starts after it."""
    row: dict[str, Any] = {"name": name}
    with tempfile.TemporaryDirectory(prefix="eqsat-start-") as folder:
        starts: dict[str, list[dict[str, Any]]] = {variant: [] for variant in COMPARED}
        for _ in range(1 + warm):
            for variant in COMPARED:
                starts[variant].append(started(name, variant, Path(folder) / variant))
        for variant, (cold, *others) in starts.items():
            row[variant] = {"cold": cold, "warm": others}
    return row


def line(row: dict[str, Any]) -> str:
    """Seconds by the wall of all variants, and ours as ratios."""

    def seconds(variant: str, kind: str) -> float:
        found = row[variant][kind]
        return float(found["wall_s"] if kind == "cold" else statistics.median(f["wall_s"] for f in found))

    cells = [f"{seconds(v, 'cold'):6.1f} / {seconds(v, 'warm'):5.1f}" for v in COMPARED]
    ratios = (
        f"cold {seconds('eqsat', 'cold') / seconds('freezing', 'cold'):.1f}x freezing, warm "
        f"{seconds('eqsat', 'warm') / seconds('default', 'warm'):.1f}x default, "
        f"{seconds('eqsat', 'warm') / seconds('freezing', 'warm'):.1f}x freezing"
    )
    return f"{row['name']:<14}{'   '.join(cells)}   {ratios}"


def main() -> int:
    """Start all cases, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=CASES, metavar="case")
    parser.add_argument("--warm", type=int, default=3, help="number of warm starts of each")
    parser.add_argument("--variant", choices=COMPARED, help="start once, in this process")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.variant:
        print(json.dumps(start(arguments.names[0], arguments.variant)))
        return 0
    rows = []
    print(f"{'':<14}" + "   ".join(f"{v:>9}, s: cold / warm" for v in COMPARED))
    for name in arguments.names:
        rows.append(measured(name, arguments.warm))
        print(line(rows[-1]), flush=True)
        arguments.results.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
