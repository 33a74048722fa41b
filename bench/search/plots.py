"""Draws the results: cost over seconds, growth of e-graphs, search trees, the paper's table.

Run as ``python -m bench.search.plots [--out FOLDER]`` after ``python -m bench.search.paper``; needs matplotlib (in the
extra ``bench``). The data lie in bench/results/paper.json and paper_curves.json.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.models.paper_graphs import GRAPHS
from bench.search.paper import CURVES, RESULTS, STRATEGIES, Row, read, reduction

OUT = RESULTS.parent / "plots"


def best_so_far(curve: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Seconds, and the least cost in ms seen by then."""
    seconds, costs, least = [], [], float("inf")
    for second, cost in sorted(map(tuple, curve)):
        least = min(least, cost)
        seconds.append(second)
        costs.append(least)
    return seconds, costs


def tree_positions(tree: Sequence[Row]) -> list[tuple[float, int]]:
    """A place for each node: across by the order of the leaves below it, down by its depth."""
    children: list[list[int]] = [[] for _ in tree]
    depth = [0] * len(tree)
    for index, node in enumerate(tree):
        if node["parent"] >= 0:
            children[node["parent"]].append(index)
            depth[index] = depth[node["parent"]] + 1
    across = [0.0] * len(tree)
    leaves = 0
    # Children come after their parents, so that all are placed when the list is read backwards.
    for index in reversed(range(len(tree))):
        if children[index]:
            across[index] = statistics.mean(across[child] for child in children[index])
        else:
            across[index] = leaves
            leaves -= 1
    return list(zip(across, depth, strict=True))


def draw_lines(plt: Any, rows: Sequence[Row], name: str, label: str, path: Path) -> None:
    """One axes a graph, one line a strategy, over seconds."""
    graphs = [graph for graph in GRAPHS if any(row["graph"] == graph for row in rows)]
    figure, axes = plt.subplots((len(graphs) + 2) // 3, 3, figsize=(13, 3.2 * ((len(graphs) + 2) // 3)), squeeze=False)
    for axis, graph in zip(axes.flat, graphs, strict=False):
        for row in rows:
            if row["graph"] != graph or row["strategy"] == "none" or not row[name]:
                continue
            if name == "curve":
                axis.step(*best_so_far(row[name]), where="post", label=row["strategy"])
            else:
                axis.plot(*zip(*row[name], strict=True), label=row["strategy"], linewidth=0.7)
        axis.set(title=graph, xlabel="seconds", ylabel=label)
        axis.set_xscale("symlog", linthresh=0.1)
        axis.legend(fontsize=7)
    for axis in list(axes.flat)[len(graphs) :]:
        axis.set_visible(False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def draw_limits(plt: Any, rows: Sequence[Row], path: Path) -> None:
    """Mean reduction of all graphs over the limit of nodes, one line a strategy."""
    figure, axis = plt.subplots(figsize=(6, 4))
    limits = sorted({row["node_limit"] for row in rows})
    for strategy in STRATEGIES[1:]:
        points = []
        for limit in limits:
            gains = [reduction(r) for r in rows if r["strategy"] == strategy and r["node_limit"] == limit]
            if gains:
                points.append((limit, statistics.mean(gains)))
        if points:
            axis.plot(*zip(*points, strict=True), marker="o", label=strategy)
    axis.set(xlabel="limit of e-nodes", ylabel="mean reduction of cost [%]", xscale="log")
    axis.legend()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def draw_tree(plt: Any, row: Row, path: Path) -> None:
    """A search tree: states by depth, dark where the best program below gained most."""
    tree = row["tree"]
    places = tree_positions(tree)
    figure, axis = plt.subplots(figsize=(12, 6))
    for (x, y), node in zip(places, tree, strict=True):
        if node["parent"] >= 0:
            parent = places[node["parent"]]
            axis.plot((parent[0], x), (-parent[1], -y), color="lightgrey", linewidth=0.8, zorder=1)
        axis.annotate(node["move"], (x, -y), fontsize=5, rotation=30, ha="left", va="bottom")
    shades = [100 * node["value"] for node in tree]
    sizes = [12 + 4 * node["visits"] for node in tree]
    dots = axis.scatter([x for x, _ in places], [-y for _, y in places], c=shades, s=sizes, zorder=2)
    figure.colorbar(dots, label="best reduction at or below [%]")
    axis.set(title=f"{row['graph']}, seed {row['seed']}, {row['node_limit']:,} e-nodes")
    axis.axis("off")
    figure.savefig(path)
    plt.close(figure)


def main() -> None:
    """Draw everything that there are data for."""
    parser = argparse.ArgumentParser(description="Draw the results of bench.search.paper.")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the pictures (default: %(default)s)")
    out = parser.parse_args().out
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    out.mkdir(parents=True, exist_ok=True)
    rows, curves = read(RESULTS).rows, read(CURVES).rows
    for limit in sorted({row["node_limit"] for row in curves}):
        here = [row for row in curves if row["node_limit"] == limit]
        draw_lines(plt, here, "curve", "cost [ms]", out / f"cost_{limit}.svg")
        draw_lines(plt, here, "growth", "e-nodes", out / f"growth_{limit}.svg")
        for row in here:
            if row["tree"]:
                draw_tree(plt, row, out / f"tree_{row['graph']}_{limit}.svg")
    if rows:
        draw_limits(plt, rows, out / "limits.svg")
    print(f"pictures are in {out}")


if __name__ == "__main__":
    main()
