"""Prices for a machine that is not here: all of them estimates from the device's data, none of them measured."""

from __future__ import annotations

from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.cost.roofline import GPUS, gpu_coefficients, gpu_roofline
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
