"""What the search worker is asked and answers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.ir.program import Program, Task
from torch_eqsat.laws.assumptions import GRANTED
from torch_eqsat.laws.transfer import Shipped
from torch_eqsat.search.extractable import Extractable
from torch_eqsat.search.families import Hint
from torch_eqsat.search.limits import Limits, StopReason
from torch_eqsat.search.parameters import SearchParameters


@dataclass(frozen=True)
class SearchRequest:
    """Optimize ``task`` at the prices of ``pricing``, with the laws (of the catalogue and ``user_laws``) not in
    ``disabled`` and of exactness up to ``exactness``, by the strategy of that name; ``granted`` is what they may
    assume, ``hint`` what made the best program of a graph of the same family."""

    task: Task
    pricing: Pricing
    limits: Limits
    exactness: str = "reassociates"
    disabled: frozenset[str] = frozenset()
    seed: int = 0
    strategy: str = "mcts"
    user_laws: Shipped = ()
    granted: frozenset[str] = GRANTED
    parameters: SearchParameters = SearchParameters()
    hint: Hint | None = None

    @property
    def seconds(self) -> float:
        """The time that the request grants."""
        return self.limits.seconds


@dataclass(frozen=True)
class RepriceRequest:
    """Extract again from the e-graph of ``outcome``, which answered a search of ``task``, at the prices of ``pricing``,
    and look for the exact optimum for ``milp_seconds``; ``leisure_seconds`` is what else each of its e-graphs gets,
    ``rounds`` the rounds of annealing without a gain that end an extraction."""

    task: Task
    outcome: Outcome
    pricing: Pricing
    seed: int = 0
    milp_seconds: float = 0.0
    leisure_seconds: float = SearchParameters().leisure_seconds
    parameters: SearchParameters = SearchParameters()
    rounds: int = 2

    @property
    def seconds(self) -> float:
        """The time that the request grants."""
        return self.milp_seconds + self.leisure_seconds * len(self.outcome.extractables)


@dataclass(frozen=True)
class Outcome:
    """The answer: the best program, the original's cost (ms), a lower bound (ms, 0 if none is known) of the programs
    in the first of the ``extractables``, the e-graph that the best one comes from (others are worth a look when prices
    have changed; there are none when the search could not begin); kernels whose prices were estimates (``unmeasured``
    those that the program runs, ``missing`` all that were met); why the search stopped, and statistics; names of
    laws of the user's that failed and were ``dropped``, each with what happened. ``transient`` says that it stopped for
    no reason of its own or of its limits (a worker that died or was late, an interrupt): another try may do better.
    ``detail`` is what happened then, in words."""

    program: Program
    base_cost: float
    lower_bound: float
    unmeasured: tuple[Kernel, ...]
    missing: tuple[Kernel, ...]
    stop: StopReason
    simulations: int
    nodes: int
    seconds: float
    curve: tuple[tuple[float, float], ...]
    extractables: tuple[Extractable, ...] = ()
    dropped: tuple[tuple[str, str], ...] = ()
    transient: bool = False
    detail: str = ""

    @property
    def reason(self) -> str:
        """Why the search stopped, for users."""
        return self.detail or str(self.stop)

    def cut_short(self, stop: StopReason, detail: str = "") -> Outcome:
        """What is left of it after something that may pass."""
        return replace(self, stop=stop, detail=detail, transient=True)


@dataclass(frozen=True)
class Progress:
    """A better program was found; the search goes on. What is left if the worker dies."""

    outcome: Outcome


@dataclass(frozen=True)
class Failure:
    """The worker could not answer; ``text`` says why in one line."""

    text: str
