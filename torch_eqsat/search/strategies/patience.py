"""How long a search goes on without a gain: counted as work and not in seconds, for equal plans in every process."""

from __future__ import annotations

from torch_eqsat.search.environment import Environment

# Once the other laws have saturated, expansive laws may do as much work as those did, and this much at least (about
# 0.3 s), without a gain that is worth while (of the base cost), and MOST_GRANTS times as much with any. Twelve encoder
# layers took 20 s before, of which the last 15 brought 0.1 %; a cell whose prices were estimates took 18 s.
LEAST_WORK = 60_000
MOST_GRANTS = 4
WORTHWHILE_GAIN = 5e-3


class Patience:
    """Measures the work of a search since its last gain that was worth while; it ends with :meth:`grant`'s."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._cost, self._work = environment.best.cost, 0
        self._granted, self._end = float("inf"), float("inf")

    def grant(self) -> None:
        """From now on, as much work as was done up to now is granted after each gain."""
        self._work = self._environment.work
        self._granted = max(self._work, LEAST_WORK)
        self._end = self._work + MOST_GRANTS * self._granted

    def note(self) -> None:
        """Look whether there was a gain."""
        best = self._environment.best.cost
        if self._cost - best > WORTHWHILE_GAIN * self._environment.base_cost:
            self._cost, self._work = best, self._environment.work

    @property
    def is_over(self) -> bool:
        """Whether what was granted has been used up."""
        work = self._environment.work
        return work - self._work > self._granted or work > self._end
