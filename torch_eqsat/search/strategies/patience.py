"""How long a search goes on without a gain: counted as work and not in seconds, for equal plans in every process."""

from __future__ import annotations

from torch_eqsat.search.environment import Environment


class Patience:
    """Measures the work of a search since its last gain that was worth while; it ends with :meth:`grant`'s."""

    def __init__(self, environment: Environment) -> None:
        self._environment, self._parameters = environment, environment.parameters
        self._cost, self._work = environment.best.cost, 0
        self._granted, self._end = float("inf"), float("inf")

    def grant(self) -> None:
        """From now on, as much work as was done up to now is granted after each gain."""
        self._work = self._environment.work
        self._granted = max(self._work, self._parameters.least_work)
        self._end = self._work + self._parameters.most_grants * self._granted

    def note(self) -> None:
        """Look whether there was a gain."""
        best = self._environment.best.cost
        if self._cost - best > self._parameters.worthwhile_gain * self._environment.base_cost:
            self._cost, self._work = best, self._environment.work

    @property
    def is_over(self) -> bool:
        """Whether what was granted has been used up."""
        work = self._environment.work
        return work - self._work > self._granted or work > self._end
