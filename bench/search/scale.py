"""How planning grows with the graph: encoders of ever more layers, no two of them equal, and one of equal layers.

Run as ``python -m bench.search.scale``. Each size runs in a process of its own. Seconds are those from the FX graph to
the plan (capture, cutting into regions, search, joining) without a limit of time that would cut growth off; bytes are
the greatest resident size of the process, with torch and the graph itself. Writes bench/results/scale.json, with the
parameters of the search.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.models.paper_graphs import traced
from bench.search.whole import search_whole
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.graph.capture import capture
from torch_eqsat.ir.program import Task
from torch_eqsat.rewrites import catalogue
from torch_eqsat.search.limits import Limits
from torch_eqsat.search.parameters import SearchParameters

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results" / "scale.json"
SIZES = (500, 1_000, 2_000, 5_000, 10_000)
EQUAL_LAYERS = 48
TOKENS, WIDTH, HEADS = 32, 64, 4


class Layer(nn.Module):
    """An encoder layer; ``inner`` is the width of its feed-forward part."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.up, self.down = nn.Linear(WIDTH, inner), nn.Linear(inner, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """x [tokens, width] to the same shape."""
        query, key, value, output = self.projections
        normal = self.norms[0](x)
        q, k, v = (p(normal).view(TOKENS, HEADS, -1).transpose(0, 1) for p in (query, key, value))
        attention = torch.softmax(q @ k.transpose(1, 2) * 0.25, -1) @ v
        x = x + output(attention.transpose(0, 1).reshape(TOKENS, WIDTH))
        return torch.tanh(x + self.down(functional.gelu(self.up(self.norms[1](x)))))


class Encoder(nn.Module):
    """Layers with these inner widths."""

    def __init__(self, inner: list[int]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Layer(width) for width in inner))

    def forward(self, x: Tensor) -> Tensor:
        """x [tokens, width] to the same shape."""
        return torch.as_tensor(self.layers(x))


def plan(inner: list[int]) -> dict[str, float]:
    """Plan an encoder; its calls, the seconds, the bytes."""
    graph, weights = traced(lambda: (Encoder(inner), (torch.empty(TOKENS, WIDTH),)))
    nodes = sum(node.op == "call_function" for node in graph.nodes)
    start = time.monotonic()
    found = capture(graph, weights)
    result = search_whole(Task(found.graph, found.parts), catalogue(), Pricing(frozen=True), Limits(seconds=1e6))
    seconds = time.monotonic() - start
    assert result.program.cost <= result.base_cost
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"nodes": nodes, "seconds": round(seconds, 3), "peak_bytes": peak}


def run(layers: int, *, equal: bool = False) -> dict[str, float]:
    """Plan so many layers in a process of its own."""
    command = [sys.executable, "-m", "bench.search.scale", "--plan", str(layers), *(["--equal"] if equal else [])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"{layers:7}{row['nodes']:8,}{row['seconds']:10.2f}{row['peak_bytes'] / 2**20:10.0f}", flush=True)
    return row


def exponent(rows: list[dict[str, float]]) -> float:
    """The slope of seconds over nodes on logarithmic axes, by least squares."""
    points = [(math.log(row["nodes"]), math.log(row["seconds"])) for row in rows]
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return float(above / sum((x - mean_x) ** 2 for x, _ in points))


def main() -> None:
    """Plan all sizes, and equal layers."""
    parser = argparse.ArgumentParser(description="How planning grows with the graph.")
    parser.add_argument("--plan", type=int, help="plan so many layers in this process and print the row")
    parser.add_argument("--equal", action="store_true", help="with --plan: layers that are all equal")
    arguments = parser.parse_args()
    if arguments.plan:
        widths = [128] * arguments.plan if arguments.equal else [128 + 8 * i for i in range(arguments.plan)]
        print(json.dumps(plan(widths)))
        return
    print(SearchParameters())
    print(f"{'layers':>7}{'nodes':>8}{'time [s]':>10}{'peak MiB':>10}")
    per_layer = (run(12)["nodes"] - run(2)["nodes"]) / 10
    rows = [run(max(1, round(size / per_layer))) for size in SIZES]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    content = {"parameters": asdict(SearchParameters()), "rows": rows}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"seconds grow with nodes to the power of {exponent(rows):.2f}")
    print("equal layers: one, then as many as in a large model")
    one, many = run(1, equal=True), run(EQUAL_LAYERS, equal=True)
    print(f"{EQUAL_LAYERS} equal layers take {many['seconds'] / one['seconds']:.2f} times as long as one")


if __name__ == "__main__":
    main()
