"""Plain equality saturation, as TENSAT does it (Yang et al., MLSys 2021): the first of the baselines."""

from __future__ import annotations

from torch_eqsat.search.actions import Action
from torch_eqsat.search.environment import Environment, SearchStatistics

MULTI_ROUNDS = 1  # their default, k_multi = 1


class Saturation:
    """All laws in every round, those for siblings (multi-pattern rules) in the first ``MULTI_ROUNDS``, until nothing
    changes or the node limit is reached; then one exact extraction."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.rounds = 0

    def run(self) -> SearchStatistics:
        environment = self.environment
        single = Action("single", tuple(law for law in environment.laws if not law.siblings))
        everything = Action("everything", tuple(environment.laws))
        stop = "saturated"
        while True:
            if environment.out_of_time:
                stop = "time"
                break
            changed, truncated = environment.step(everything if self.rounds < MULTI_ROUNDS else single)
            self.rounds += 1
            if truncated or not changed:
                stop = "nodes" if truncated else "saturated"
                break
        if stop != "time":
            environment.evaluate()
            environment.finish()
        return SearchStatistics(stop, self.rounds, environment.largest_nodes)
