"""Best-first substitution, as TASO does it (Jia et al., SOSP 2019): programs instead of e-graphs.

The cheapest program found is taken from a queue, every law is tried at every place of it, one place at a time (all
siblings at once), and what costs less than ``substitution_alpha`` times the best program joins the queue. A program
taken is what the limits call a playout.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from torch_eqsat.extract.greedy import greedy_choices
from torch_eqsat.extract.problem import Choices, ExtractionProblem, InvalidExtractionError, dag_cost
from torch_eqsat.ir.program import Program, Task, restarted
from torch_eqsat.search.actions import Action
from torch_eqsat.search.environment import Environment
from torch_eqsat.search.extractable import Extractable
from torch_eqsat.search.limits import SearchStatistics, StopReason


class BestFirstSubstitution:
    """The second of the baselines."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.everything = Action("everything", tuple(environment.laws))
        self.siblings = {law.name for law in environment.laws if law.siblings}

    def run(self) -> SearchStatistics:
        """Take the cheapest program of the queue until it is empty or a limit is reached; why it stopped."""
        environment = self.environment
        queue: list[tuple[float, int, Task]] = [(environment.base_cost, 0, environment.task)]
        met = {environment.task.graph.digest()}
        taken, stop = 0, StopReason.EXHAUSTED
        while queue:
            if environment.out_of_time or taken >= environment.limits.simulations:
                stop = StopReason.TIME if environment.out_of_time else StopReason.PROGRAMS
                break
            _, _, task = heapq.heappop(queue)
            taken += 1
            for program in self._substitutions(task):
                digest = program.graph.digest()
                if digest not in met:
                    met.add(digest)
                    heapq.heappush(queue, (program.cost, len(met), restarted(task, program)))
        return SearchStatistics(stop, taken, environment.largest_nodes)

    def _substitutions(self, task: Task) -> Iterator[Program]:
        """The programs one substitution away that are cheap enough."""
        environment = self.environment
        environment.push()
        environment.enter(task)
        environment.step(self.everything)
        extractable = environment.extractable()
        environment.pop()
        problem = extractable.problem(environment.pricing)
        original = extractable.original()
        default = greedy_choices(problem, original).choices
        for flips in self._flips(extractable, problem, original):
            if environment.out_of_time:
                return
            choices = {**default, **flips}
            try:
                cost = dag_cost(problem, choices)
            except InvalidExtractionError:  # the program would need itself
                continue
            if cost < environment.parameters.substitution_alpha * environment.best.cost:
                program = extractable.program(choices, cost)
                environment.keep(program, extractable)
                yield program

    def _flips(self, extractable: Extractable, problem: ExtractionProblem, original: Choices) -> Iterator[Choices]:
        """Each other e-node of each e-class of the program; those that read one merged sibling all together."""
        merged: dict[tuple[int, ...], Choices] = {}
        for owner, chosen in original.items():
            for node in problem.class_nodes[owner]:
                if node == chosen:
                    continue
                if extractable.snapshot.laws[node] in self.siblings:
                    merged.setdefault(problem.node_children[node], {})[owner] = node
                else:
                    yield {owner: node}
        yield from merged.values()
