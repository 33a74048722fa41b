"""Random terms, all laws run to a limit: whatever they put into one e-class has to have one value.

Run as ``python -m bench.laws.fuzz --seconds 3600`` (or ``make fuzz SECONDS=3600``); ``--seed N --runs 1`` repeats one
run. A failure is shrunk: to the fewest laws and the smallest term that show it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from bench.laws.fuzz_terms import Grower, below
from bench.laws.printer import write_terms
from torch_eqsat.egraph.egraph import EGraph
from torch_eqsat.errors import UnsoundRewriteError
from torch_eqsat.ir.term import TermGraph
from torch_eqsat.laws.assumptions import EVERYTHING
from torch_eqsat.laws.law import Law
from torch_eqsat.laws.transfer import guarded
from torch_eqsat.rewrites import catalogue
from torch_eqsat.verification.egraphs import find_disagreement

NODES, ROUNDS = 300, 3
EXPANSIVE, APPROXIMATING = 0.4, 0.3
"""The shares of the runs that expansive laws, and laws of the tier "approximates", take part in."""
CANCELLATION = 1e-9
"""What values of size 1 may differ by after laws of that tier: mean(x²) − mean(x)² is not 0 for one number."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one seed gave: the operators of its term, the laws that fired, and what went wrong ("" if nothing)."""

    seed: int
    operators: frozenset[str]
    fired: Counter[str]
    problem: str


class Fuzzer:
    """Runs seeds, each in a egraph of its own, so that any seed gives again what it gave."""

    def __init__(self, laws: Sequence[Law]) -> None:
        self.failures: dict[str, str] = {}
        self.laws = [guarded(law, self.failures) for law in laws]

    def grown(self, rng: random.Random) -> tuple[TermGraph, dict[str, Tensor]]:
        """A random term and its inputs."""
        grower = Grower(rng, self.laws)
        for _ in range(rng.randint(2, 8)):
            grower.grow()
        return grower.result()

    def run(self, seed: int) -> Run:
        """Grow a term, apply laws, compare values."""
        rng = random.Random(seed)
        graph, inputs = self.grown(rng)
        expansive, approximating = rng.random() < EXPANSIVE, rng.random() < APPROXIMATING
        laws = [
            law
            for law in self.laws
            if (expansive or not law.expansive) and (approximating or law.exactness != "approximates")
        ]
        if rng.random() < 0.5:  # others find room where these leave it
            laws = rng.sample(laws, len(laws) // 3)
        problem, fired = self._saturate(graph, inputs, laws)
        if problem:
            problem = self._shrunk(graph, inputs, laws, problem)
        return Run(seed, frozenset(node.op for node in graph.nodes), fired, problem)

    def _saturate(self, graph: TermGraph, inputs: dict[str, Tensor], laws: Sequence[Law]) -> tuple[str, Counter[str]]:
        """Apply ``laws``; what went wrong, and how often each law fired."""
        fired: Counter[str] = Counter()
        self.failures.clear()
        egraph = EGraph(laws, NODES, EVERYTHING)
        try:
            egraph.load(graph)
            for _ in range(ROUNDS):
                step = egraph.apply(laws)
                fired.update(step.fired)
                if step.truncated or not step.fired:
                    break
            floor = CANCELLATION if any(law.exactness == "approximates" for law in laws) else 0.0
            problem = next(iter(self.failures.values()), "") or find_disagreement(egraph.snapshot(), 0, inputs, floor)
        except UnsoundRewriteError as error:
            problem = str(error)
        finally:
            egraph.close()
        return problem, fired

    def _shrunk(self, graph: TermGraph, inputs: dict[str, Tensor], laws: Sequence[Law], problem: str) -> str:
        """The fewest laws and the smallest term that show a problem."""
        for root in graph.reachable(graph.roots):
            part = below(graph, [root])
            if found := self._saturate(part, inputs, laws)[0]:
                graph, problem = part, found
                break
        names = [name for name, _ in self._saturate(graph, inputs, laws)[1].most_common()]
        kept = [law for law in laws if law.name in names] or list(laws)
        size = max(1, len(kept) // 2)
        while size:
            for start in range(0, len(kept), size):
                fewer = kept[:start] + kept[start + size :]
                if fewer and (found := self._saturate(graph, inputs, fewer)[0]):
                    kept, problem = fewer, found
                    break
            else:
                size //= 2
        text = write_terms(graph, graph.roots)
        return f"{problem}\n  laws: {', '.join(law.name for law in kept)}\n  term: {text}"


def main() -> None:
    """Run seeds until the time is over; the status is 1 when something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=sys.maxsize, help="at most so many runs")
    parser.add_argument("--seed", type=int, default=None, help="the first seed (default: drawn)")
    options = parser.parse_args()
    first = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    print(f"seeds from {first}", flush=True)
    fuzzer, end = Fuzzer(catalogue()), time.monotonic() + options.seconds
    runs = wrong = 0
    operators: Counter[str] = Counter()
    fired: Counter[str] = Counter()
    while runs < options.runs and time.monotonic() < end:
        run = fuzzer.run(first + runs)
        runs += 1
        operators.update(run.operators)
        fired.update(run.fired.keys())
        if run.problem:
            wrong += 1
            print(f"seed {run.seed}: {run.problem}", flush=True)
    idle = [law.name for law in fuzzer.laws if law.name not in fired]
    print(f"{runs} runs, {wrong} wrong; operators: {', '.join(f'{op} {n}' for op, n in operators.most_common())}")
    print(f"{len(fired)} laws fired; {len(idle)} never did: {', '.join(idle[:40])}")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
