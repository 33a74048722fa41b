"""One search of the paper's table, in a process of its own: reads its order from standard input, prints the answer.

Free of torch. The time is that from the captured graph to the joined program, with all extraction.
"""

from __future__ import annotations

import argparse
import base64
import json
import pickle
import resource
import sys
import time
from typing import Any

from bench.search.standalone import Standalone, load_table, standalone
from bench.search.whole import search_whole
from torch_eqsat.ir.program import Task
from torch_eqsat.rewrites import catalogue
from torch_eqsat.search.limits import Limits
from torch_eqsat.search.parameters import SearchParameters
from torch_eqsat.search.strategies.mcts import REBASE, STOP, MonteCarloTreeSearch
from torch_eqsat.search.strategies.table import Strategy

MEMORY_BYTES = 6 << 30
PLAYOUTS = 1000  # TASO's budget; the tree search ends before, for want of improvements
# Ours cuts graphs that leave an e-graph no room; the other strategies are what their papers describe.
CUTS = frozenset({"mcts"})


def run(task: Task, pricing: Standalone, order: dict[str, Any]) -> dict[str, Any]:
    """The row of an order, and what is drawn of it."""
    limits = Limits(order["node_limit"], order["limit_seconds"], PLAYOUTS, order["exact_seconds"])
    start = time.monotonic()
    strategy = order["strategy"]
    found = search_whole(
        task,
        catalogue(),
        pricing,
        limits,
        strategy=strategy,
        seed=order["seed"],
        cut=strategy in CUTS,
        parameters=SearchParameters(**order["parameters"]),
    )
    row = {name: order[name] for name in ("graph", "strategy", "seed", "node_limit")}
    row |= {"base_ms": found.base_cost, "best_ms": min(found.base_cost, found.program.cost)}
    row |= {"seconds": round(time.monotonic() - start, 3), "stop": found.stop, "limit_seconds": order["limit_seconds"]}
    drawn = {"curve": found.curve, "growth": thinned(found.growth), "tree": tree_of(found.strategies)}
    laws = dict(found.program.laws.most_common())
    lacking = len(pricing.lacking) + len(pricing.missing)
    return {"row": row, "drawn": drawn, "laws": laws, "lacking": lacking, "nodes": found.nodes}


def thinned(points: list[tuple[float, int]], most: int = 300) -> list[tuple[float, int]]:
    """At most about so many of the points."""
    return points[:: max(1, len(points) // most)]


def tree_of(strategies: list[Strategy]) -> list[dict[str, Any]]:
    """The search trees of the first region that has any: parent, move, visits and value of each node."""
    rows: list[dict[str, Any]] = []
    searches = [s for s in strategies if isinstance(s, MonteCarloTreeSearch) and s.roots]
    if not searches:
        return rows
    pending = [(root, -1, "best program") for root in reversed(searches[0].roots)]
    met = set()
    while pending:
        node, parent, move = pending.pop()
        rows.append({"parent": parent, "move": move, "visits": node.visits, "value": node.value})
        if id(node) not in met:
            met.add(id(node))
            made = [edge for edge in node.edges or () if edge.target is not None]
            pending += [(e.target, len(rows) - 1, _name(searches[0], e.move)) for e in made if e.target is not None]
    return rows


def _name(search: MonteCarloTreeSearch, move: int) -> str:
    return {STOP: "stop", REBASE: "rebase"}.get(move) or search.actions[move].name


def main() -> None:
    """Answer one order."""
    argparse.ArgumentParser(prog="python -m bench.search.paper_run", description=__doc__).parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    order = json.loads(sys.stdin.readline())
    task = pickle.loads(base64.b64decode(sys.stdin.readline()))
    print(json.dumps(run(task, standalone(load_table()), order)))


if __name__ == "__main__":
    main()
