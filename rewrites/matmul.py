"""Matrix products: associativity, distribution, scales, transposition."""

from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.laws.law import equation, law
from torch_eqsat.rewrites.shapes import aligned, narrow, varies_only_along


@equation(
    "matmul(matmul(a, b), c) = matmul(a, matmul(b, c))",
    example=["matmul(matmul([2, 3], [3, 4]), [4, 5])", "matmul(matmul([2, 3, 3], [2, 3, 4]), [2, 4, 5])"],
    back="matmul([2, 3], matmul([3, 4], [4, 5]))",
    assumes={"a": "finite", "b": "no_overflow", "c": "no_overflow"},
    assumes_back={"a": "finite no_overflow", "b": "no_overflow"},
)
def matmul_is_associative() -> None:
    """(A B) C = A (B C)"""


@law(
    "add(add(r, p := matmul(x, a)), q := matmul(x, b))",
    example="add(add([2, 4], matmul(x := [2, 3], [3, 4])), matmul(x, [3, 4]))",
)
def like_matmuls_meet(t: Builder, r: Handle, p: Handle, q: Handle) -> Handle:
    """(R + X A) + X B = R + (X A + X B)"""
    return t.add(r, t.add(p, q))


@law(
    "v := view(m := matmul(a, b))",
    example=["view(matmul([6, 3], [3, 5]), shape=[2, 3, 5])", "view(matmul([2, 6, 3], [3, 5]), shape=[2, 2, 3, 5])"],
    refused=[
        "view(matmul([6, 3], [3, 5]), shape=[6, 5, 1])",
        "view(matmul([6, 3], [3, 4]), shape=[6, 2, 2])",
        "view(matmul([2, 6, 3], [3, 5]), shape=[12, 5])",
        "view(matmul([2, 6, 3], [2, 3, 5]), shape=[2, 2, 3, 5])",
    ],
)
def split_rows_of_product(t: Builder, v: Handle, m: Handle, a: Handle, b: Handle) -> Handle | None:
    """The rows of A B, split over several axes = (the rows of A, so split) B"""
    if v.rank <= m.rank or v.shape[-1] != m.shape[-1] or b.rank != 2:
        return None
    return t.matmul(t.view(a, (*v.shape[:-1], a.shape[-1])), b)


@law(
    "p := mul(m := matmul(x, y), s)",
    example=["mul(matmul([2, 3], [3, 4]), [4])", "mul(matmul([2, 5, 3], [3, 4]), [1, 1, 4])"],
    refused="mul(matmul([2, 3], [3, 4]), [2, 1])",
    assumes={"x": "finite", "y": "no_overflow", "s": "no_overflow"},
)
def column_scale_moves_in(t: Builder, p: Handle, m: Handle, x: Handle, y: Handle, s: Handle) -> Handle | None:
    """(X Y) · s = X (Y · s) for a number, or a factor per column"""
    if not varies_only_along(s, {m.rank - 1}, m.rank) or s.rank > m.rank or p.shape != m.shape:
        return None
    return t.matmul(x, t.mul(y, s if s.rank <= y.rank else t.view(s, s.shape[-1:])))


@law(
    "m := matmul(add(x, c), w)",
    example=["matmul(add([5, 3], [3]), [3, 4])", "matmul(add([2, 5, 3], [3]), [3, 4])"],
    refused=["matmul(add([5, 3], [5, 1]), [3, 4])", "matmul(add([2, 5, 3], [5, 1]), [3, 4])"],
    assumes={"x|c": "no_cancellation", "x": "finite no_overflow"},
)
def shift_through_matmul(t: Builder, m: Handle, x: Handle, c: Handle, w: Handle) -> Handle | None:
    """(X + 1 cᵀ) W = X W + 1 (cᵀ W) for a shift that is the same in every row"""
    if w.rank != 2 or c.rank > x.rank or aligned(c.shape, x.rank) != (*(1,) * (x.rank - 1), x.shape[-1]):
        return None
    if x.numel == c.numel and (t.is_constant(x) or not t.is_constant(c)):  # of two rows, the constant one is the shift
        return None
    return t.add(t.matmul(x, w), t.matmul(t.view(c, (1, c.numel)), w))


@law(
    "p := permute(m := matmul(a, b))",
    example="permute(matmul([2, 3], [3, 4]), dims=[1, 0])",
    refused="permute(matmul([5, 2, 3], [5, 3, 4]), dims=[1, 0, 2])",
)
def transposed_matmul(t: Builder, p: Handle, a: Handle, b: Handle) -> Handle | None:
    """(A B)ᵀ = Bᵀ Aᵀ"""
    swap = (*range(p.rank - 2), p.rank - 1, p.rank - 2)
    return t.matmul(t.permute(b, swap), t.permute(a, swap)) if p["dims"] == swap else None


@law(
    "m := matmul(mul(x, c), w)",
    example=["matmul(mul([5, 3], [3]), [3, 4])", "matmul(mul([2, 5, 3], [1, 1, 3]), [3, 4])"],
    refused=["matmul(mul([5, 3], [5, 1]), [3, 4])", "matmul(mul([5, 3], [5, 3]), [3, 4])"],
    assumes={"c": "no_overflow", "w": "no_overflow"},
)
def inner_scale_moves_right(t: Builder, m: Handle, x: Handle, c: Handle, w: Handle) -> Handle | None:
    """(X · cᵀ) W = X (c · W) for a factor per inner index"""
    if c.rank > x.rank or not varies_only_along(c, {x.rank - 1}, x.rank) or c.numel != x.shape[-1] or c.numel == 1:
        return None
    column = (*(1,) * (w.rank - 2), c.numel, 1)
    return t.matmul(x, t.mul(w, t.view(c, column))) if x.numel > c.numel else None


@law(
    "p := mul(m := matmul(x, y), s)",
    example="mul(matmul([2, 3], [3, 4]), [2, 1])",
    refused="mul(matmul([2, 3], [3, 4]), [4])",
    expansive=True,
    assumes={"x": "finite no_overflow"},
)
def row_scale_moves_in(t: Builder, p: Handle, m: Handle, x: Handle, y: Handle, s: Handle) -> Handle | None:
    """(X Y) · s = (s · X) Y for a factor per row"""
    rows = range(m.rank - 1)
    if not varies_only_along(s, rows, m.rank) or s.rank > m.rank or p.shape != m.shape:
        return None
    return t.matmul(t.mul(x, s), y)


@law(
    "m := matmul(x, e := expand(w))",
    example="matmul([2, 5, 3], expand([1, 3, 4], shape=[2, 3, 4]))",
    refused=[
        "matmul([2, 5, 3], expand([2, 3, 1], shape=[2, 3, 4]))",
        "matmul([4, 5, 2], expand([4, 1, 1], shape=[4, 2, 2]))",
        "matmul([2, 5, 2], expand([2, 1, 1], shape=[2, 2, 1]))",
    ],
)
def batch_with_one_matrix(t: Builder, m: Handle, x: Handle, e: Handle, w: Handle) -> Handle | None:
    """A batch of products with copies of one matrix = one product with it"""
    if e.rank != 3 or aligned(w.shape, 3) != (1, *e.shape[1:]):
        return None
    rows = t.view(x, (x.shape[0] * x.shape[1], x.shape[2]))
    return t.view(t.matmul(rows, t.view(w, e.shape[1:])), m.shape)


@law(
    "m := matmul(a, b)",
    example="matmul([1, 4, 3], [1, 3, 5])",
    refused="matmul([2, 4, 3], [2, 3, 5])",
)
def batch_of_one(t: Builder, m: Handle, a: Handle, b: Handle) -> Handle | None:
    """A batch of one product is that product"""
    if b.rank != 3 or m.shape[0] != 1:
        return None
    return t.view(t.matmul(t.view(a, a.shape[1:]), t.view(b, b.shape[1:])), m.shape)


@law(
    "matmul(p := permute(a), q := permute(b))",
    example="matmul(permute([2, 3], dims=[1, 0]), permute([4, 2], dims=[1, 0]))",
    refused="matmul(permute([5, 2, 3], dims=[1, 0, 2]), permute([3, 2, 4], dims=[1, 0, 2]))",
)
def product_of_transposed(t: Builder, p: Handle, q: Handle, a: Handle, b: Handle) -> Handle | None:
    """Aᵀ Bᵀ = (B A)ᵀ"""
    swap = (*range(p.rank - 2), p.rank - 1, p.rank - 2)
    return t.permute(t.matmul(b, a), swap) if p["dims"] == q["dims"] == swap else None


@law(
    "m := matmul(a, b)",
    example="matmul([4, 3], [3, 1])",
    refused="matmul([4, 3], [3, 2])",
    assumes={"a": "no_overflow"},
)
def product_with_a_column(t: Builder, m: Handle, a: Handle, b: Handle) -> Handle | None:
    """A b = Σ over columns of A · bᵀ"""
    if b.shape[-1] != 1 or b.shape[-2] == 1 or narrow(a):
        return None
    row = t.view(b, (*b.shape[:-2], 1, b.shape[-2]))
    return t.reduce(t.mul(a, row), "sum", [m.rank - 1])
