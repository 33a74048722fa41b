"""What the search worker is asked and answers."""

from __future__ import annotations

from dataclasses import dataclass

from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.rules.shipping import Shipped
from torch_eqsat.search.environment import Limits
from torch_eqsat.search.program import Program, Task


@dataclass(frozen=True)
class SearchRequest:
    """Optimize ``task`` with the laws not in ``disabled``, those of the user (``rules``) included, of exactness up to
    ``exactness``.

    ``prices`` are ms by kernel key; ``frozen`` says that weights are constants.
    """

    task: Task
    prices: dict[str, float]
    frozen: bool
    threads: int
    device: str
    limits: Limits
    exactness: str = "reassociates"
    disabled: frozenset[str] = frozenset()
    seed: int = 0
    rules: Shipped = ()


@dataclass(frozen=True)
class RepriceRequest:
    """Extract again with more prices known, and look for the exact optimum for ``milp_seconds``; or give the
    ``original`` program."""

    prices: dict[str, float]
    milp_seconds: float = 0.0
    original: bool = False


@dataclass(frozen=True)
class Outcome:
    """The answer: the best program, the original's cost (ms), a lower bound (ms, 0 if none is known) of the programs
    in the e-graph that the best one comes from, kernels whose prices were estimates (``unmeasured``
    those that the program runs, ``missing`` all in the e-graph), and statistics. ``dropped`` says of each law of the
    user's that failed, in one line, why the search went on without it."""

    program: Program
    base_cost: float
    lower_bound: float
    unmeasured: tuple[Kernel, ...]
    missing: tuple[Kernel, ...]
    stop: str
    simulations: int
    nodes: int
    seconds: float
    curve: tuple[tuple[float, float], ...]
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """The worker could not answer; ``text`` says why in one line."""

    text: str
