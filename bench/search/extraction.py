"""Extraction on the public e-graphs of tensor programs: greedy, local search and exact, with costs and times.

Run as ``python -m bench.search.extraction [--data DIR]``. Writes bench/results/extraction.json, with the extraction of
each row, so that its cost can be checked independently.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

from bench.search.egraph_json import NamedProblem, read_egraph_json
from torch_eqsat.extract.extract import Ending, Extraction, extract, lower_bound
from torch_eqsat.extract.greedy import greedy
from torch_eqsat.extract.problem import ExtractionProblem, dag_cost

CHECKOUT = Path(__file__).resolve().parents[2]
DATA = CHECKOUT.parent / "shared" / "data" / "extraction_gym"
RESULTS = CHECKOUT / "bench" / "results" / "extraction.json"
FILES = ("vgg_acyclic", "vgg", "resnet50_acyclic", "resnet50", "bert_acyclic", "bert")
MANY_ROUNDS = 1_000_000  # the deadline ends the search


def run_greedy(problem: ExtractionProblem) -> Extraction:
    """Greedy extraction alone."""
    start = time.monotonic()
    choices = greedy(problem)
    return Extraction(choices, dag_cost(problem, choices), 0.0, time.monotonic() - start, Ending.LOCAL_OPTIMUM)


def run_local(problem: ExtractionProblem) -> Extraction:
    """Greedy, then local search to its first local optimum, at most 1.9 s."""
    return extract(problem, deadline=time.monotonic() + 1.9)


def run_local_30(problem: ExtractionProblem) -> Extraction:
    """Greedy, then local search and annealing for 30 s."""
    return extract(problem, deadline=time.monotonic() + 30.0, rounds=MANY_ROUNDS)


def run_milp(problem: ExtractionProblem) -> Extraction:
    """Local search for at most 1.9 s, then exact extraction for at most 120 s."""
    local = run_local(problem)
    exact = extract(problem, incumbent=local.choices, milp_seconds=120.0)
    return Extraction(exact.choices, exact.cost, exact.lower_bound, local.seconds + exact.seconds, exact.stop)


METHODS: dict[str, Callable[[ExtractionProblem], Extraction]] = {
    "greedy": run_greedy,
    "local": run_local,
    "local30": run_local_30,
    "milp": run_milp,
}


def independent_cost(path: Path, choices: dict[str, str]) -> float:
    """Cost in ms of an extraction (e-class id -> e-node id), worked out from the file alone.

    Raises ValueError when the extraction is incomplete or cyclic, by removing e-classes whose operands are removed
    (Kahn's algorithm) until none is left.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    nodes = content["nodes"]
    operands = {}
    pending = list(content["root_eclasses"])
    while pending:
        owner = pending.pop()
        if owner not in operands:
            if owner not in choices or nodes[choices[owner]]["eclass"] != owner:
                raise ValueError(f"{path.name}: e-class {owner} has no e-node of its own")
            operands[owner] = {nodes[child]["eclass"] for child in nodes[choices[owner]]["children"]}
            pending.extend(operands[owner])
    users: dict[str, list[str]] = {owner: [] for owner in operands}
    for owner, children in operands.items():
        for child in children:
            users[child].append(owner)
    missing = {owner: len(children) for owner, children in operands.items()}
    ready = [owner for owner, count in missing.items() if count == 0]
    removed = 0
    while ready:
        removed += 1
        for user in users[ready.pop()]:
            missing[user] -= 1
            if missing[user] == 0:
                ready.append(user)
    if removed < len(operands):
        raise ValueError(f"{path.name}: {len(operands) - removed} e-classes are in or above a cycle")
    return math.fsum(nodes[choices[owner]]["cost"] for owner in operands)


def run(path: Path, named: NamedProblem, method: str) -> dict[str, object]:
    """Run one method on one file; returns its row of the results."""
    found = METHODS[method](named.problem)
    choices = {named.class_names[owner]: named.node_names[node] for owner, node in found.choices.items()}
    if not math.isclose(independent_cost(path, choices), found.cost, abs_tol=1e-9):
        raise ValueError(f"{path.name}, {method}: the reported cost {found.cost} is not that of the extraction")
    # Where the method proves no bound itself, a cheap one is worked out afterwards, outside of its seconds.
    bound = found.lower_bound or lower_bound(named.problem, found.choices)
    gap = 1 - bound / found.cost
    print(
        f"{path.stem:18}{method:9}{found.cost:10.4f}{bound:12.4f}{gap:8.1%}{found.seconds:9.2f}  {found.stop}",
        flush=True,
    )
    return {
        "file": path.name,
        "method": method,
        "cost": found.cost,
        "lower_bound": bound,
        "seconds": round(found.seconds, 3),
        "choices": choices,
    }


def main() -> None:
    """Run all methods on all files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the e-graphs (default: %(default)s)")
    data = parser.parse_args().data
    paths = [data / f"{file}.json" for file in FILES]
    if not all(path.is_file() for path in paths):
        print(f"skipped: {data} does not hold the e-graphs {', '.join(FILES)} (.json)")
        return
    print(f"{'file':18}{'method':9}{'cost [ms]':>10}{'lower bound':>12}{'gap':>8}{'time [s]':>9}  ended by")
    rows = []
    for path in paths:
        named = read_egraph_json(path)
        for method in METHODS:
            if method != "local30" or path.stem.startswith("bert"):
                rows.append(run(path, named, method))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
