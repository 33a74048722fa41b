"""Plain equality saturation, as TENSAT does it (Yang et al., MLSys 2021): the first of the baselines."""

from __future__ import annotations

from torch_eqsat.search.actions import Action
from torch_eqsat.search.environment import Environment
from torch_eqsat.search.limits import SearchStatistics, StopReason


def saturate(environment: Environment) -> tuple[StopReason, int]:
    """Apply all laws in every round, those for siblings (multi-patterns) in the first ``multi_rounds``, until
    nothing changes or a limit is reached; why that ended, and the rounds."""
    single = Action("single", tuple(law for law in environment.laws if not law.siblings))
    everything = Action("everything", tuple(environment.laws))
    rounds = 0
    while not environment.out_of_time:
        changed, truncated = environment.step(everything if rounds < environment.parameters.multi_rounds else single)
        rounds += 1
        if truncated or not changed:
            return StopReason.NODES if truncated else StopReason.SATURATED, rounds
    return StopReason.TIME, rounds


class Saturation:
    """Saturation, then one exact extraction."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment

    def run(self) -> SearchStatistics:
        """Saturate and extract exactly; why it stopped, with rounds as playouts."""
        stop, rounds = saturate(self.environment)
        if stop is not StopReason.TIME:
            self.environment.evaluate()
            self.environment.finish()
        return SearchStatistics(stop, rounds, self.environment.largest_nodes)
