"""What the search chooses for a corpus of graphs, as text: ``python -m bench.replay`` (or ``make replay``).

Graphs are planned in deterministic mode at recorded kernel times, so that equal code writes an equal file on every
machine: each graph's decision, costs, laws and stop reasons, and the graph that comes out. With ``--against COMMIT``
the file of that commit is made too, at the same times, and what differs is printed; the status is 1 if anything does.
"""

from __future__ import annotations

import argparse
import difflib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.fx import Graph

from bench.laws.hand_rewrites.evaluate import DETERMINISTIC_SECONDS, RECORDED, use_recorded_times
from bench.laws.hand_rewrites.table import ROWS
from bench.models.suite_models import SETS
from torch_eqsat import backend
from torch_eqsat.planning import pipeline as optimize
from torch_eqsat.report import GraphReport

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "replay.txt"
TITLE = "== "
OPTIONS = {
    "eqsat.deterministic": True,
    "eqsat.seconds": DETERMINISTIC_SECONDS,
    "eqsat.cache": False,
    "eqsat.strict": True,
    "force_disable_caches": True,
}

Subject = tuple[nn.Module, tuple[Tensor, ...], bool, bool]
"""A module, its inputs, whether its weights are frozen, and whether it is trained."""


def corpus() -> dict[str, Callable[[], Subject]]:
    """Blocks known from hand, and training steps of the suite."""
    made: dict[str, Callable[[], Subject]] = {}
    for name, row in ROWS.items():
        made[name] = lambda row=row: (row.build()[0], row.build()[2], row.frozen, row.trained)  # type: ignore[misc]
    for case in SETS["c"]:
        made[case.name] = lambda case=case: (*case.build(), False, True)  # type: ignore[misc]
    return made


def replayed(name: str, subject: Subject) -> str:
    """The text of one module's graphs."""
    module, inputs, frozen, trained = subject
    made: list[tuple[GraphReport, str]] = []

    def recording(graph: Graph, *arguments: Any) -> GraphReport:
        report = optimize.optimize(graph, *arguments)
        made.append((report, str(graph)))
        return report

    torch.compiler.reset()
    with mock.patch.object(backend, "optimize", recording), torch.set_grad_enabled(trained):
        options = {**OPTIONS, "freezing": frozen}
        torch.compile(module, backend="eqsat_mcts_eager", options=options, dynamic=False)(*inputs)
    return TITLE + name + "\n" + "".join(described(report, text) for report, text in made)


def described(report: GraphReport, text: str) -> str:
    """One graph: the decision, costs in ms, stop reasons, laws, and the graph."""
    stops = ", ".join(sorted({region.stop for region in report.regions}))
    laws = ", ".join(f"{law} x{count}" for law, count in sorted(report.laws.items()))
    return f"{report.decision}\n{report.base_ms:.6f} -> {report.best_ms:.6f} ms; {stops}\nlaws: {laws}\n{text}\n"


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """A worktree of a commit, in which its package is the one that is imported."""
    with tempfile.TemporaryDirectory(prefix="eqsat-replay-") as name:
        tree = Path(name) / "tree"
        subprocess.run(["git", "worktree", "add", "--detach", str(tree), commit], cwd=ROOT, check=True)
        try:
            link = tree / "torch_eqsat" / "rewrites"
            if not link.exists():  # commits before the link was part of the checkout
                link.symlink_to("../rewrites")
            if not (tree / "bench" / "replay.py").exists():
                sys.exit(f"commit {commit} has no bench/replay.py: choose a later one")
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def replayed_at(commit: str, arguments: list[str]) -> str:
    """The file of another commit."""
    with checkout(commit) as tree:
        out = tree / "replay.txt"
        command = [sys.executable, "-m", "bench.replay", "--out", str(out), "--times", str(RECORDED), *arguments]
        subprocess.run(command, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, check=True)
        return out.read_text(encoding="utf-8")


def differences(before: str, after: str) -> list[str]:
    """What differs between two files, graph by graph: a line for each, and a diff of it."""
    old, new = blocks(before), blocks(after)
    lines = []
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) == new.get(name):
            continue
        lines.append(f"{TITLE}{name}")
        a, b = old.get(name, "").splitlines(), new.get(name, "").splitlines()
        lines += list(difflib.unified_diff(a, b, lineterm="", n=0))[2:]
    return lines


def blocks(text: str) -> dict[str, str]:
    """The text of each name."""
    parts = ("\n" + text).split("\n" + TITLE)[1:]
    return {name: body.rstrip() for name, _, body in (part.partition("\n") for part in parts)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.replay", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="some of the corpus; all without any")
    parser.add_argument("--against", metavar="COMMIT", help="compare with what this commit chooses")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--times", type=Path, default=RECORDED, help="recorded kernel times")
    given = parser.parse_args()
    subjects = corpus()
    if unknown := set(given.names) - set(subjects):
        parser.error(f"{', '.join(sorted(unknown))}: not in the corpus of {', '.join(subjects)}")
    torch.set_num_threads(1)
    texts = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCH_EQSAT_CACHE_DIR"] = folder
        use_recorded_times(given.times)
        for name in given.names or subjects:
            torch.manual_seed(0)
            texts.append(replayed(name, subjects[name]()))
            print(*texts[-1].splitlines()[:3], sep=" | ", flush=True)
    given.out.write_text("".join(texts), encoding="utf-8")
    if not given.against:
        return 0
    found = differences(replayed_at(given.against, given.names), "".join(texts))
    print(*found or [f"no difference from {given.against}"], sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
