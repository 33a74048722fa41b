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
