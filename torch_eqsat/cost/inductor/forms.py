"""Other kernels for a heavy e-node than the one that Inductor takes by itself, each reached by writing the node in
another way.

A product with a frozen weight goes to MKL. The same product is a 1x1 convolution of one row of pixels, which goes to
oneDNN, and a product of the transposes, whose weight comes first and stays unpacked. On an AMD EPYC (family 26) with
torch 2.14.1, in µs:

| rows x inner x columns | packed (MKL) | convolution (oneDNN) | column (MKL, unpacked) |
|---|---|---|---|
| 128 x 768 x 3072 | 5242 | 2152 | – |
| 16 x 512 x 2048 | 350 | 134 | – |
| 1 x 512 x 2048 | 50 | 50 | 49 |
| 1 x 768 x 50257 | 5162 | 3934 | 7370 |

Each use of a weight packs a copy of its own; the sixteen steps of a recurrence 512 wide read 128 MiB of copies and took
5.3 ms, against 1.8 ms with the plain products, which read one weight that stays in the cache.
"""

from __future__ import annotations

from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.ir.program import COLUMN, CONVOLUTION


def forms_of(kernel: Kernel) -> dict[str, Kernel]:
    """The kernels that other forms of the node of ``kernel`` lead to, by form; empty where there is none."""
    if kernel.kind != "matmul" or not kernel.weight:
        return {}
    (rows, inner), (_, columns) = kernel.shapes
    dtype, device = kernel.dtype, kernel.device
    pixels, window = (1, inner, 1, rows), (columns, inner, 1, 1)
    forms = {CONVOLUTION: Kernel.conv(pixels, window, weight=True, dtype=dtype, device=device)}
    if rows == 1:  # of one row the transpose is a view
        forms[COLUMN] = Kernel.matmul(*kernel.shapes, turned=True, dtype=dtype, device=device)
    return forms
