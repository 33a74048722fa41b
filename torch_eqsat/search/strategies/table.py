"""The strategies by name, all on the same laws, costs and limits."""

from __future__ import annotations

from typing import Protocol

from torch_eqsat.errors import OptionError
from torch_eqsat.search.environment import Environment
from torch_eqsat.search.limits import SearchStatistics, StopReason
from torch_eqsat.search.strategies.mcts import MonteCarloTreeSearch
from torch_eqsat.search.strategies.paper import PaperTreeSearch
from torch_eqsat.search.strategies.saturation import Saturation
from torch_eqsat.search.strategies.substitution import BestFirstSubstitution


class Strategy(Protocol):
    """Searches the environment that it was made with; the environment keeps the best program at any moment."""

    def __init__(self, environment: Environment) -> None: ...

    def run(self) -> SearchStatistics:
        """Search until a limit or the strategy's own end; says why it stopped."""
        ...


class NoSearch:
    """The program as captured."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment

    def run(self) -> SearchStatistics:
        """Nothing is searched."""
        return SearchStatistics(StopReason.NOTHING_TO_DO, 0, self.environment.largest_nodes)


STRATEGIES: dict[str, type[Strategy]] = {
    "mcts": MonteCarloTreeSearch,
    "paper": PaperTreeSearch,
    "saturation": Saturation,
    "substitution": BestFirstSubstitution,
    "none": NoSearch,
}


class OutOfTime(KeyboardInterrupt):
    """Raised by a signal in the midst of a search whose time is over; an interrupt that is no failure."""


def run_strategy(name: str, environment: Environment) -> tuple[SearchStatistics, Strategy]:
    """Run a strategy by its name; an interrupt (Ctrl-C) or the end of memory ends it early, and what was found
    by then is kept.

    Raises OptionError for a name that is none of :data:`STRATEGIES`.
    """
    if name not in STRATEGIES:
        raise OptionError(f"strategy {name!r} is none of {', '.join(STRATEGIES)}")
    strategy = STRATEGIES[name](environment)
    try:
        return strategy.run(), strategy
    except OutOfTime:
        return SearchStatistics(StopReason.TIME, 0, environment.largest_nodes), strategy
    except KeyboardInterrupt:
        return SearchStatistics(StopReason.INTERRUPTED, 0, environment.largest_nodes, transient=True), strategy
    except BaseException as error:
        if not _is_out_of_memory(error):
            raise
        return SearchStatistics(StopReason.OUT_OF_MEMORY, 0, environment.largest_nodes, transient=True), strategy


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ended; where it does within egglog, Python's calls fail, and its binding panics."""
    panic = not isinstance(error, Exception) and "Python API call failed" in str(error)
    return isinstance(error, MemoryError) or panic
