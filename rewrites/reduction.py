"""Sums and means are linear: they move through matmuls, 1x1 convolutions and scales along other axes."""

from torch_eqsat.rewrites.shapes import is_pointwise_convolution, narrow, varies_only_along

from torch_eqsat.rules.builder import Builder, Handle
from torch_eqsat.rules.law import law

LINEAR = ("sum", "mean")


@law(
    "r := reduce(p := add(x, c))",
    example="reduce(add([4, 3], [3]), kind='mean', dims=[0])",
    refused="reduce(add([4, 3], [3]), kind='sum', dims=[0])",
)
def shift_moves_out_of_mean(t: Builder, r: Handle, p: Handle, x: Handle, c: Handle) -> Handle | None:
    """mean(x + c) = mean(x) + c for a shift that does not vary along the mean"""
    others = set(range(p.rank)) - set(r["dims"])
    if r["kind"] != "mean" or x.shape != p.shape or c.numel == x.numel or not varies_only_along(c, others, p.rank):
        return None
    return t.add(t.like(r, x), c)
