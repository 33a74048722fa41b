"""Matrix products: associativity, distribution, scales, transposition."""

from torch_eqsat.rewrites.shapes import aligned, narrow, varies_only_along

from torch_eqsat.rules.builder import Builder, Handle
from torch_eqsat.rules.law import law


@law(
    "matmul(matmul(a, b), c)",
    example=["matmul(matmul([2, 3], [3, 4]), [4, 5])", "matmul(matmul([2, 3, 3], [2, 3, 4]), [2, 4, 5])"],
)
def matmul_associates_right(t: Builder, a: Handle, b: Handle, c: Handle) -> Handle:
    """(A B) C = A (B C)"""
    return t.matmul(a, t.matmul(b, c))


@law("matmul(a, matmul(b, c))", example="matmul([2, 3], matmul([3, 4], [4, 5]))")
def matmul_associates_left(t: Builder, a: Handle, b: Handle, c: Handle) -> Handle:
    """A (B C) = (A B) C"""
    return t.matmul(t.matmul(a, b), c)


@law(
    "add(add(r, p := matmul(x, a)), q := matmul(x, b))",
    example="add(add([2, 4], matmul(x := [2, 3], [3, 4])), matmul(x, [3, 4]))",
)
def like_matmuls_meet(t: Builder, r: Handle, p: Handle, q: Handle) -> Handle:
    """(R + X A) + X B = R + (X A + X B)"""
    return t.add(r, t.add(p, q))


@law(
    "p := mul(m := matmul(x, y), s)",
    example="mul(matmul([2, 3], [3, 4]), [4])",
    refused="mul(matmul([2, 3], [3, 4]), [2, 1])",
)
def column_scale_moves_in(t: Builder, p: Handle, m: Handle, x: Handle, y: Handle, s: Handle) -> Handle | None:
    """(X Y) · s = X (Y · s) for a factor per column"""
    if not varies_only_along(s, {m.rank - 1}, m.rank) or s.rank > m.rank or s.numel == 1 or p.shape != m.shape:
        return None
    return t.matmul(x, t.mul(y, s))


@law(
    "m := matmul(add(x, c), w)",
    example="matmul(add([5, 3], [3]), [3, 4])",
    refused="matmul(add([5, 3], [5, 1]), [3, 4])",
)
def shift_through_matmul(t: Builder, m: Handle, x: Handle, c: Handle, w: Handle) -> Handle | None:
    """(X + 1 cᵀ) W = X W + 1 (cᵀ W) for a shift that is the same in every row"""
    if x.rank != 2 or c.rank > 2 or aligned(c.shape, 2) != (1, x.shape[1]) or x.shape[0] == 1:
        return None
    return t.add(t.matmul(x, w), t.matmul(t.view(c, aligned(c.shape, 2)), w))


@law(
    "p := permute(m := matmul(a, b))",
    example="permute(matmul([2, 3], [3, 4]), dims=[1, 0])",
    refused="permute(matmul([5, 2, 3], [5, 3, 4]), dims=[1, 0, 2])",
)
def transposed_matmul(t: Builder, p: Handle, a: Handle, b: Handle) -> Handle | None:
    """(A B)ᵀ = Bᵀ Aᵀ"""
    swap = (*range(p.rank - 2), p.rank - 1, p.rank - 2)
    return t.matmul(t.permute(b, swap), t.permute(a, swap)) if p["dims"] == swap else None
