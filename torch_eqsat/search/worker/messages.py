"""What the search worker is asked and answers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.ir.program import Program, Task
from torch_eqsat.laws.assumptions import GRANTED
from torch_eqsat.laws.transfer import Shipped
from torch_eqsat.search.extractable import Extractable
from torch_eqsat.search.hints import Hint
from torch_eqsat.search.limits import Limits, StopReason
from torch_eqsat.search.parameters import SearchParameters


@dataclass(frozen=True)
class SearchRequest:
    """Optimize ``task`` at the prices of ``pricing``, with the laws (of the catalogue and ``user_laws``) not in
    ``disabled`` and of exactness up to ``exactness``, by the strategy of that name; ``granted`` is what they may
    assume, ``hint`` what made the best program of a graph that is equal up to sizes."""

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


Request = SearchRequest | RepriceRequest
"""What a worker is asked."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The answer to a request."""

    program: Program
    """The best program found."""
    base_cost: float
    """Cost of the captured program, in ms."""
    lower_bound: float
    """No program of the first of the ``extractables`` costs less than this many ms; 0 if that is not known."""
    unmeasured: tuple[Kernel, ...]
    """Kernels that the program runs and whose prices are estimates."""
    missing: tuple[Kernel, ...]
    """All kernels met whose prices are estimates."""
    stop: StopReason
    """Why the search stopped."""
    simulations: int
    """Playouts."""
    nodes: int
    """Size of the largest e-graph, in e-nodes."""
    seconds: float
    """When the program was found, in seconds after the start; after a repricing with the time of that."""
    curve: tuple[tuple[float, float], ...]
    """Costs of the best programs (ms) over seconds."""
    extractables: tuple[Extractable, ...] = ()
    """The e-graph that the program comes from, then others that may have a better one at other prices; none if the
    search could not begin."""
    dropped: tuple[tuple[str, str], ...] = ()
    """Names of the user's laws that failed, each with what happened."""
    transient: bool = False
    """Whether it stopped for no reason of its own or of its limits (a worker that died or was late, an interrupt), so
    that another try may do better."""
    detail: str = ""
    """What happened then, in words."""

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
