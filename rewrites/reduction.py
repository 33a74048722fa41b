"""Sums and means are linear: they move through matmuls, 1x1 convolutions and scales along other axes."""

from torch_eqsat.rewrites.shapes import is_pointwise_convolution, narrow, varies_only_along

from torch_eqsat.rules.builder import Builder, Handle
from torch_eqsat.rules.law import law

LINEAR = ("sum", "mean")


@law(
    "r := reduce(m := matmul(a, b))",
    example=[
        "reduce(matmul([4, 3], [3, 5]), kind='mean', dims=[0])",
        "reduce(matmul([4, 3], [3, 5]), kind='sum', dims=[1])",
    ],
    refused="reduce(matmul([4, 3], [3, 5]), kind='amax', dims=[0])",
)
def reduction_through_matmul(t: Builder, r: Handle, m: Handle, a: Handle, b: Handle) -> Handle | None:
    """Σ over rows of A B = (Σ A) B, and over columns A (Σ B)"""
    if r["kind"] not in LINEAR or len(r["dims"]) != 1 or r["dims"][0] < m.rank - 2:
        return None
    return t.matmul(t.like(r, a), b) if r["dims"][0] == m.rank - 2 else t.matmul(a, t.like(r, b))


@law(
    "r := reduce(y := conv(x, w))",
    example="reduce(conv([1, 3, 4, 4], [5, 3, 1, 1]), kind='mean', dims=[2, 3])",
    refused="reduce(conv([1, 3, 4, 4], [5, 3, 3, 3]), kind='mean', dims=[2, 3])",
)
def reduction_through_pointwise_convolution(t: Builder, r: Handle, y: Handle, x: Handle, w: Handle) -> Handle | None:
    """Σ over positions of conv1x1(x, w) = conv1x1(Σ x, w)"""
    if r["kind"] not in LINEAR or not all(d >= 2 for d in r["dims"]) or not is_pointwise_convolution(y, w):
        return None
    return t.like(y, t.like(r, x), w)


@law(
    "r := reduce(p := mul(x, c))",
    example="reduce(mul([4, 3], [3]), kind='sum', dims=[0])",
    refused="reduce(mul([4, 3], [3]), kind='sum', dims=[1])",
)
def factor_moves_out_of_reduction(t: Builder, r: Handle, p: Handle, x: Handle, c: Handle) -> Handle | None:
    """Σ (c · x) = c · Σ x for a factor that does not vary along the sum"""
    others = set(range(p.rank)) - set(r["dims"])
    if (
        r["kind"] not in LINEAR
        or narrow(x)
        or x.shape != p.shape
        or c.numel == x.numel
        or not varies_only_along(c, others, p.rank)
    ):
        return None
    return t.mul(t.like(r, x), c)


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
