"""Look-ups in tables: embeddings, one-hot products, diagonal matrices.

A look-up selects rows, so an operator on columns may be applied to the table instead. This pays if the table depends on
weights alone or is smaller than its look-up. merging.py has the merges of several look-ups.
"""

from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.laws.law import law
from torch_eqsat.rewrites.shapes import aligned, narrow


@law(
    "m := matmul(v := view(e := embedding(w, i)), u)",
    example="matmul(view(embedding([9, 4], integers(2, 5)), shape=[10, 4]), [4, 3])",
    refused="matmul(view(embedding([9, 4], integers(2, 5)), shape=[5, 8]), [8, 3])",
)
def table_times_matrix(t: Builder, m: Handle, v: Handle, e: Handle, w: Handle, i: Handle, u: Handle) -> Handle | None:
    """embedding(w, i) U = embedding(w U, i)"""
    if v.rank != 2 or v.shape[1] != w.shape[1]:
        return None
    return t.view(t.like(e, t.matmul(w, u), i), m.shape)


@law(
    "m := matmul(e := embedding(w, i), u)",
    example=["matmul(embedding([9, 4], integers(5)), [4, 3])", "matmul(embedding([9, 4], integers(2, 5)), [4, 3])"],
    refused="matmul(embedding([9, 4], integers(2, 5)), [2, 4, 3])",
)
def table_times_matrix_at_once(t: Builder, m: Handle, e: Handle, w: Handle, i: Handle, u: Handle) -> Handle | None:
    """embedding(w, i) U = embedding(w U, i) for one matrix U"""
    return t.like(e, t.matmul(w, u), i) if u.rank == 2 else None


@law(
    "e := embedding(p := mul(w, s), i)",
    example="embedding(mul([4, 3], [3]), integers(2, 6))",
    refused="embedding(mul([4, 3], [4, 1]), integers(2, 6))",
)
def column_factor_moves_out_of_table(
    t: Builder, e: Handle, p: Handle, w: Handle, s: Handle, i: Handle
) -> Handle | None:
    """embedding(w · s, i) = embedding(w, i) · s for a factor per column"""
    if w.shape != p.shape or s.rank > 2 or aligned(s.shape, 2)[0] != 1:
        return None
    return t.mul(t.like(e, w, i), t.view(s, s.shape[-1:]))


@law(
    "e := embedding(f := embedding(w, i), j)",
    exactness="bitwise",
    example="embedding(embedding([9, 4], integers(5)), integers(2, 3))",
    refused="embedding(embedding([9, 4], integers(5)), [2, 3])",
    assumes={"i": "in_range"},
)
def lookup_of_lookup(t: Builder, e: Handle, f: Handle, w: Handle, i: Handle, j: Handle) -> Handle | None:
    """embedding(embedding(w, i), j) = embedding(w, i[j])"""
    if i.rank != 1 or j.type.dtype != "int64":
        return None
    return t.like(e, w, t.apply("index", (i, j), first=0)) if j.rank > 0 else None


@law(
    "c := convert(b := convert(x))",
    exactness="bitwise",
    normalises=True,
    example="convert(convert(booleans(4, 3), dtype='int64'), dtype='float32')",
    refused="convert(convert([4, 3], dtype='int64'), dtype='float32')",
)
def conversion_of_truth_values(t: Builder, c: Handle, b: Handle, x: Handle) -> Handle | None:
    """convert(convert(x)) = convert(x) for truth values, which every number type holds"""
    return t.like(c, x) if x.type.dtype == "bool" else None


@law(
    "m := matmul(c := convert(e := equal(v, r)), w)",
    example="matmul(convert(equal(integers(5, 1), integers(4, repeats=1)), dtype='float32'), [4, 3])",
    refused=[
        "matmul(convert(equal(integers(5, 1), integers(4, repeats=2)), dtype='float32'), [4, 3])",
        "matmul(convert(equal(integers(5, 1), integers(4)), dtype='float32'), [4, 3])",
        "matmul(convert(equal(integers(1, 4), integers(4, repeats=1)), dtype='float32'), [4, 3])",
    ],
    assumes={"w": "all_finite"},
)
def one_hot_times_matrix(t: Builder, m: Handle, c: Handle, e: Handle, v: Handle, r: Handle, w: Handle) -> Handle | None:
    """(v = [0, 1, …]) W = the rows v of W, or zeros where v is no row"""
    rows = w.shape[0]
    if (
        m.rank != 2
        or t.known(r, "repeats") != 1
        or r.numel != rows
        or r.shape[-1:] != (rows,)
        or v.shape != (m.shape[0], 1)
    ):
        return None
    if v.type.dtype != "int64":
        return None
    row = t.apply("clamp", (v,), low=0, high=rows - 1)
    found = t.apply("embedding", (w, t.view(row, (m.shape[0],))))
    return t.apply("where", (t.apply("equal", (row, v)), found, t.scalar(0.0, w.type.dtype)))


def _is_diagonal(t: Builder, d: Handle, e: Handle, v: Handle, z: Handle) -> bool:
    """Whether ``d``, where(e, v, z), is the diagonal matrix of the vector ``v``."""
    square = e.shape == d.shape == (v.numel, v.numel) and v.rank <= 2
    return square and t.known(z, "value") == 0 and bool(t.known(e, "eye"))


@law(
    "m := matmul(d := where(e, v, z), x)",
    example=[
        "matmul(where(booleans(4, 4, eye=1), [4], 0.0), [4, 3])",
        "matmul(where(booleans(4, 4, eye=1), [4, 1], 0.0), [4, 3])",
    ],
    refused=[
        "matmul(where(booleans(4, 4), [4], 0.0), [4, 3])",
        "matmul(where(booleans(4, 4, eye=1), [4], 1.0), [4, 3])",
    ],
    assumes={"x": "finite"},
)
def diagonal_times_matrix(
    t: Builder, m: Handle, d: Handle, e: Handle, v: Handle, z: Handle, x: Handle
) -> Handle | None:
    """diag(v) X = v · X, row by row"""
    n = d.shape[0]
    if (
        d.rank != 2
        or t.known(z, "value") != 0
        or not t.known(e, "eye")
        or e.shape != (n, n)
        or v.numel != n
        or v.rank > 2
    ):
        return None
    return t.mul(x, t.view(v, (n, 1)))


@law(
    "m := matmul(x, d := where(e, v, z))",
    example="matmul([3, 4], where(booleans(4, 4, eye=1), [4], 0.0))",
    refused="matmul([3, 4], where(booleans(4, 4), [4], 0.0))",
    assumes={"x": "finite"},
)
def matrix_times_diagonal(
    t: Builder, m: Handle, d: Handle, e: Handle, v: Handle, z: Handle, x: Handle
) -> Handle | None:
    """X diag(v) = X · v, column by column"""
    n = d.shape[1]
    if (
        d.rank != 2
        or t.known(z, "value") != 0
        or not t.known(e, "eye")
        or e.shape != (n, n)
        or v.numel != n
        or v.rank > 2
    ):
        return None
    return t.mul(x, t.view(v, (n,)))


@law(
    "r := reduce(d := where(e, g := matmul(a, p := permute(a)), z))",
    example="reduce(where(booleans(4, 4, upper=1), matmul(a := [2, 4, 3], permute(a, dims=[0, 2, 1])), 0.0), "
    "kind='sum', dims=[1, 2])",
    refused=[
        "reduce(where(booleans(4, 4), matmul(a := [4, 3], permute(a, dims=[1, 0])), 0.0), kind='sum', dims=[0, 1])",
        "reduce(where(booleans(4, 4, upper=1), matmul(a := [4, 4], permute(a, dims=[0, 1])), 0.0), "
        "kind='sum', dims=[0, 1])",
    ],
    exactness="approximates",
    assumes={"a": "no_mask no_overflow"},
)
def triangle_of_symmetric_matrix(
    t: Builder, r: Handle, d: Handle, e: Handle, g: Handle, a: Handle, p: Handle, z: Handle
) -> Handle | None:
    """Σ over i < j of Gᵢⱼ = (Σ G − Σ diag G) / 2 for the symmetric G = A Aᵀ"""
    swap = (*range(g.rank - 2), g.rank - 1, g.rank - 2)
    above = t.known(e, "upper") and t.known(z, "value") == 0 and e.shape == g.shape[-2:]
    if not above or narrow(a) or p["dims"] != swap or r["kind"] != "sum" or r["dims"] != (g.rank - 2, g.rank - 1):
        return None
    own = t.view(t.reduce(t.apply("diagonal", (g,)), "sum", [g.rank - 2]), r.shape)
    return t.mul(t.minus(t.like(r, g), own), t.scalar(0.5, a.type.dtype))


@law(
    "d := diagonal(m := matmul(a, b))",
    example=["diagonal(matmul([4, 3], [3, 4]))", "diagonal(matmul([2, 4, 3], [2, 3, 4]))"],
    assumes={"a": "no_overflow"},
)
def diagonal_of_product(t: Builder, d: Handle, m: Handle, a: Handle, b: Handle) -> Handle | None:
    """diag(A B) = Σ over columns of A ∘ Bᵀ"""
    if narrow(a) or a.rank != b.rank:  # a matrix product sums in float32
        return None
    swap = (*range(m.rank - 2), m.rank - 1, m.rank - 2)
    return t.view(t.reduce(t.mul(a, t.permute(b, swap)), "sum", [m.rank - 1]), d.shape)
