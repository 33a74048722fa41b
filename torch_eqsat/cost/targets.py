"""Prices for a machine that is not here: all of them estimates from the device's data, none of them measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.cost.roofline import GPUS, Roofline, gpu_coefficients, gpu_roofline
from torch_eqsat.errors import OptionError

HERE = "here"
TARGETS = ("cpu", *GPUS)
"""What a plan can be made for besides the machine that runs it."""


def target_pricing(target: str, frozen: bool, threads: int = 1) -> Pricing:
    """Prices on ``target`` by its roofline; ``threads`` are those of a CPU. Raises OptionError for an unknown one.

    >>> target_pricing("H100", frozen=True).device
    'cuda'
    """
    if target not in TARGETS:
        raise OptionError(f"target {target!r} is unknown; it is one of {', '.join(TARGETS)}")
    if target == "cpu":
        return Pricing(frozen, "cpu", threads)
    roofline = gpu_roofline(target)
    assert roofline is not None
    return Pricing(frozen, "cuda", threads, coefficients=gpu_coefficients(roofline), gpu=target)


@dataclass(frozen=True)
class Ratios:
    """Measured times over estimated ones, for ``count`` kernels: their median, smallest and largest, and the share of
    them that are at least 1, as optimistic estimates should make them."""

    count: int
    median: float
    least: float
    most: float
    optimistic: float


def measured_over_estimated(measured: Iterable[tuple[Kernel, float]], roofline: Roofline) -> Ratios | None:
    """How the ``roofline`` compares with ``measured`` ``(kernel, ms)`` pairs of its device and dtype; None for none.

    >>> kernel = Kernel.matmul((32, 64), (64, 48))
    >>> roofline = Roofline(1e8, 1e7, 0.0)
    >>> measured_over_estimated([(kernel, 2 * roofline.lower_estimate_ms(kernel))], roofline)
    Ratios(count=1, median=2.0, least=2.0, most=2.0, optimistic=1.0)
    """
    ratios = [ms / roofline.lower_estimate_ms(kernel) for kernel, ms in measured]
    if not ratios:
        return None
    optimistic = sum(ratio >= 1 for ratio in ratios) / len(ratios)
    return Ratios(len(ratios), statistics.median(ratios), min(ratios), max(ratios), optimistic)
