"""Where a program finds its weights: in the cache, where the last call left them, or in memory.

A product of one row does little more than read its weight, and which kernel does so best differs. On an AMD EPYC
(family 26, 32 MiB of L3), [1, 512] by [512, 4096], in GB/s:

| weight from | packed (MKL) | convolution (oneDNN) | plain |
|---|---|---|---|
| the cache | 77 | 82 | 73 |
| memory | 27 | 37 | 27, transposed 15 |

The 80 products of the benchmark's recurrent cell read 80 MiB: 1.6 ms with weights in the cache, 3.9 ms in fact.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch_eqsat.cost.roofline import Coefficients

# Of the last level of the cache the share that a program's weights may fill and still be found there by the next call:
# 12 MB of weights stay in 32 MiB, 80 MiB do not. Where copies of up to 128 MiB were at the speed of a cache, 64 MB were
# read at 20 GB/s and 96 MB at 13, which is what memory gives.
RESIDENT_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class Residency:
    """Bytes of weights, and of what is made of them, that a call of a program goes through: with a ``packed`` copy for
    each use, and ``shared`` by all uses."""

    packed: int = 0
    shared: int = 0

    def __add__(self, other: Residency) -> Residency:
        return Residency(self.packed + other.packed, self.shared + other.shared)


RESIDENT = Residency()
"""Nothing has to be read from memory."""


def kept_bytes(coefficients: Coefficients) -> float:
    """How many bytes of weights a call finds in the cache, where the last one left them; where nothing is known of the
    last level, as many as copies find there."""
    return RESIDENT_SHARE * coefficients.last_level_bytes or coefficients.cache_bytes
