"""Reports on the last compiled graphs: what the backend did and why. ``torch_eqsat.explain`` shows them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

TIME = "time"
"""The stop reason of a search that the limit of time ended (`StopReason.TIME`, of a layer above)."""


@dataclass(frozen=True)
class RegionReport:
    """A region of a graph, and its search."""

    count: int
    """How often it occurs."""
    terms: int
    """Its size, in terms."""
    base_ms: float
    """Predicted time as captured, in ms."""
    best_ms: float
    """Predicted time of the program found, in ms."""
    lower_bound_ms: float
    """A lower bound on the programs of its e-graph, in ms; 0 if unknown."""
    laws: Mapping[str, int]
    """How many e-nodes of the program each law made."""
    stop: str
    """Why the search stopped."""
    simulations: int
    """Playouts."""
    nodes: int
    """Size of the largest e-graph, in e-nodes."""
    seconds: float
    """When the program was found, in seconds after the start."""
    transient: bool = False
    """Whether a temporary failure stopped the search."""


@dataclass(frozen=True)
class RaceReport:
    """The original and the rewritten graph, compiled and timed in turn (ms, 0 if that failed). ``winner`` is
    "original", "rewritten", or "" if the race is undecided or failed; ``note`` says why."""

    original_ms: float
    rewritten_ms: float
    winner: str
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether there are no times."""
        return not self.original_ms

    def __str__(self) -> str:
        if self.failed:
            return f"not measured ({self.note})"
        outcome = f"the {self.winner} graph is faster" if self.winner else f"undecided ({self.note})"
        return f"measured {self.original_ms:.3f} ms before, {self.rewritten_ms:.3f} ms after: {outcome}"


@dataclass
class GraphReport:
    """One graph."""

    nodes: int
    """Calls in the graph."""
    frozen: bool
    """Whether weights are constants."""
    decision: str = "left as it is"
    """What was done and why, in one line."""
    changed: bool = False
    """Whether the graph was rewritten."""
    from_plan: bool = False
    """Whether the plan was stored before, so that nothing was searched."""
    folded: int = 0
    """Terms of factory operators that became buffers."""
    base_ms: float = 0.0
    """Predicted time of the original, in ms."""
    best_ms: float = 0.0
    """Predicted time of the chosen program, in ms."""
    regions: list[RegionReport] = field(default_factory=list)
    """The distinct regions."""
    search_seconds: float = 0.0
    """Seconds of all searches together."""
    measure_seconds: float = 0.0
    """Seconds of timing kernels."""
    judge_seconds: float = 0.0
    """Seconds of comparing the rewritten graph with the original."""
    kernels_measured: int = 0
    """Kernels that were timed."""
    kernels_left: int = 0
    """Kernels that the search met and that have no time, mostly because `eqsat.measure_seconds` was over."""
    kernels_failed: dict[str, str] = field(default_factory=dict)
    """Kernels whose timing failed temporarily, by key, with the reason."""
    disturbed: str = ""
    """A temporary failure that cut the search short, so that the plan is used once and not stored; "" without one."""
    target: str = ""
    """The device whose estimated prices were used; "" for the prices of this machine."""
    plan_key: str = ""
    """The key of the plan on disk."""
    race: RaceReport | None = None
    """The times of both graphs, if they were compiled and timed."""
    refused: list[str] = field(default_factory=list)
    """The judge's reason for each region that it refused."""
    refused_sizes: str = ""
    """Why what was found for a graph with symbolic sizes does not hold for all of them; "" if it does."""

    @property
    def laws(self) -> Counter[str]:
        """The number of e-nodes that each law made in the chosen program."""
        total: Counter[str] = Counter()
        for region in self.regions:
            for law, count in region.laws.items():
                total[law] += count * region.count
        return total

    def _kernels(self) -> str:
        met = f" of {self.kernels_measured + self.kernels_left}" if self.kernels_left else ""
        return f"{self.kernels_measured}{met} kernels"

    def __str__(self) -> str:
        lines = [
            f"graph of {self.nodes} calls{', weights frozen' if self.frozen else ''}: {self.decision}",
            f"  {f'estimated for {self.target}:' if self.target else 'predicted'} "
            f"{self.base_ms:.3f} ms before, {self.best_ms:.3f} ms after",
            f"  search {self.search_seconds:.1f} s, measuring {self.measure_seconds:.1f} s "
            f"({self._kernels()}), checking {self.judge_seconds:.1f} s"
            + (", from a stored plan" if self.from_plan else ""),
        ]
        if late := sum(region.stop == TIME for region in self.regions):
            lines.append(f"  the limit of time ended the search of {late} of {len(self.regions)} distinct regions")
        if self.disturbed:
            lines.append(f"  not stored, because another search may find a better plan: {self.disturbed}")
        if self.race is not None:
            lines.append(f"  {self.race}")
        lines += [f"  a region was refused: {reason}" for reason in self.refused]
        if self.folded:
            lines.append(f"  {self.folded} terms of factory operators were evaluated once")
        if self.laws and (self.changed or self.target):
            lines.append("  laws: " + ", ".join(f"{name} x{n}" for name, n in self.laws.most_common(12)))
        shown = sorted(self.regions, key=lambda r: r.count * (r.base_ms - r.best_ms), reverse=True)[:8]
        for region in shown:
            lines.append(
                f"  region x{region.count} of {region.terms} terms: {region.base_ms:.3f} -> {region.best_ms:.3f} ms"
                f"{_gap(region)}; "
                f"{region.stop} after {region.simulations} playouts, {region.nodes} e-nodes, {region.seconds:.2f} s"
            )
        if len(self.regions) > len(shown):
            lines.append(f"  … and {len(self.regions) - len(shown)} regions that save less")
        return "\n".join(lines)


def _gap(region: RegionReport) -> str:
    """The relative distance of the program from the lower bound of its e-graph, in words; "" if unknown."""
    if not region.lower_bound_ms:
        return ""
    gap = 1 - region.lower_bound_ms / region.best_ms if region.best_ms else 0.0
    return " (optimal)" if gap < 1e-4 else f" (within {gap:.1%})"


_KEPT = 64
_reports: deque[GraphReport] = deque(maxlen=_KEPT)


def record(report: GraphReport) -> None:
    """Add ``report`` to the last ones."""
    _reports.append(report)


def last_reports() -> list[GraphReport]:
    """Reports on the graphs compiled last in this process, oldest first."""
    return list(_reports)


def reset() -> None:
    """Forget all reports."""
    _reports.clear()
