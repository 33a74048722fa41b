"""How long a search goes on without a gain: counted as work and not in seconds, for equal plans in every process."""

from __future__ import annotations

from torch_eqsat.search.environment import Environment

# Once the other laws have saturated, expansive laws may do as much work as those did, and this much at least (about
# 1 s), without a gain that is worth while (of the base cost). Twelve encoder layers took 20 s before, of which the
# last 15 brought 0.1 %.
LEAST_WORK = 250_000
WORTHWHILE_GAIN = 5e-3


class Patience:
    """Measures the work of a search since its last gain that was worth while; it ends with :meth:`grant`'s."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._cost, self._work = environment.best.cost, 0
        self._granted = float("inf")

    def grant(self) -> None:
        """From now on, as much work as was done up to now is granted after each gain."""
        self._work = self._environment.work
        self._granted = max(self._work, LEAST_WORK)

    def note(self) -> None:
        """Look whether there was a gain."""
        best = self._environment.best.cost
        if self._cost - best > WORTHWHILE_GAIN * self._environment.base_cost:
            self._cost, self._work = best, self._environment.work

    @property
    def is_over(self) -> bool:
        """Whether what was granted has been used up."""
        return self._environment.work - self._work > self._granted
