"""What a plan depends on besides the graph, and the prices that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch_eqsat.cost.calibration import Calibration
from torch_eqsat.cost.inductor.residency import Residency
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.cost.targets import HERE, target_pricing
from torch_eqsat.laws.transfer import Shipped
from torch_eqsat.options import Options
from torch_eqsat.search.parameters import SearchParameters


@dataclass(frozen=True)
class Setting:
    """Everything besides the graph that a plan depends on. ``key`` identifies it across processes, but for the
    ``parameters``, the ``calibration``, which is read for each graph, and the numbers that stand for ``symbolic``
    sizes. ``user_laws`` are the user's laws as the search gets them. With ``tiles`` generated code can call kernels of
    our own."""

    options: Options
    frozen: bool
    device: str
    threads: int
    key: str
    user_laws: Shipped = ()
    calibration: Calibration = field(default_factory=Calibration)
    parameters: SearchParameters = SearchParameters()
    symbolic: frozenset[int] = frozenset()
    tiles: bool = True

    def pricing(self, measured: Mapping[str, float], residency: Residency, *, whole: bool = False) -> Pricing:
        """Prices, of e-nodes or of the terms of ``whole`` programs, where kernels take so many ms as ``measured`` says
        by key, and a call goes through the weights of ``residency``."""
        if self.options.target != HERE:
            return target_pricing(self.options.target, self.frozen, self.threads)
        free = self.device == "cpu" and self.options.exactness != "bitwise"  # another kernel rounds otherwise
        return Pricing(
            self.frozen,
            self.device,
            self.threads,
            dict(measured),
            coefficients=self.calibration.coefficients,
            alternatives=free,
            symbolic=self.symbolic,
            residency=residency,
            epilogues=self.device == "cpu" and self.frozen,
            whole=whole,
            roofline=self.calibration.roofline,
            tiles=self.tiles and self.frozen and self.device == "cpu",
        )
