"""Slices move towards the inputs, through operators on other axes, so that elements are not computed if nothing reads
them.

Slices of a map of one operand (a reduction, a matmul, a 1x1 convolution, an elementwise function) are instances of the
laws in principles.py. This module has the slices of operators with several operands, and of operators on shapes.
"""

from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.laws.law import law
from torch_eqsat.laws.pattern import Place, pointwise
from torch_eqsat.rewrites.shapes import aligned, slice_before_view


def _cut(t: Builder, s: Handle, x: Handle, whole: int, rank: int) -> Handle:
    """The part of ``x`` that slice ``s`` reads. x is broadcast to ``rank`` axes; the sliced axis has size ``whole``."""
    dim = s["dim"] - (rank - x.rank)
    if dim < 0 or x.shape[dim] == 1 != whole:
        return x
    return t.slice(x, dim, s["start"], s["stop"])


@law(
    "s := slice(y := F(a, b))",
    exactness="bitwise",
    F=pointwise(2),
    example="slice(F([4, 3], [1, 3]), dim=0, start=1, stop=3)",
)
def slice_through_binary(t: Builder, s: Handle, y: Handle, a: Handle, b: Handle) -> Handle:
    """slice(f(a, b)) = f(slice(a), slice(b)), an operand that is broadcast along the axis staying whole"""
    whole = y.shape[s["dim"]]
    return t.like(y, _cut(t, s, a, whole, y.rank), _cut(t, s, b, whole, y.rank))


@law(
    "s := slice(y := F(a, b, c))",
    exactness="bitwise",
    F=pointwise(3),
    example=lambda F: [
        f"slice({F.op}({'booleans(4, 3)' if F.op == 'where' else '[4, 3]'}, [3], [4, 1]), dim=1, start=1, stop=3)"
    ],
)
def slice_through_ternary(t: Builder, s: Handle, y: Handle, a: Handle, b: Handle, c: Handle) -> Handle:
    """slice(f(a, b, c)) = f(slice(a), slice(b), slice(c))"""
    whole = y.shape[s["dim"]]
    return t.like(y, *(_cut(t, s, x, whole, y.rank) for x in (a, b, c)))


@law(
    "s := slice(p := permute(x))",
    exactness="bitwise",
    example="slice(permute([2, 3, 4], dims=[2, 0, 1]), dim=0, start=1, stop=2)",
)
def slice_through_permute(t: Builder, s: Handle, p: Handle, x: Handle) -> Handle:
    """slice(permute(x)) = permute(slice(x))"""
    return t.permute(t.slice(x, p["dims"][s["dim"]], s["start"], s["stop"]), p["dims"])


@law(
    "s := slice(v := view(x))",
    exactness="bitwise",
    example="slice(view([1, 128, 6], shape=[128, 6]), dim=0, start=0, stop=1)",
    refused="slice(view([6, 4], shape=[4, 6]), dim=1, start=0, stop=4)",
)
def slice_through_view(t: Builder, s: Handle, v: Handle, x: Handle) -> Handle | None:
    """slice(view(x)) = view(slice(x))"""
    found = slice_before_view(x.shape, v.shape, s["dim"], s["start"], s["stop"])
    return t.view(t.slice(x, *found), s.shape) if found else None


@law(
    "s := slice(e := expand(x))",
    exactness="bitwise",
    example="slice(expand([1, 3], shape=[2, 5, 3]), dim=1, start=1, stop=3)",
)
def slice_through_expand(t: Builder, s: Handle, e: Handle, x: Handle) -> Handle:
    """slice(expand(x)) = expand(slice(x))"""
    return t.expand(_cut(t, s, x, e.shape[s["dim"]], e.rank), s.shape)


@law(
    "s := slice(r := slice(x))",
    exactness="bitwise",
    example="slice(slice([9, 2], dim=0, start=2, stop=8), dim=0, start=1, stop=3)",
    refused="slice(slice([9, 2], dim=0, start=2, stop=8), dim=1, start=1, stop=2)",
)
def slice_of_slice(t: Builder, s: Handle, r: Handle, x: Handle) -> Handle | None:
    """slice(slice(x)) = slice(x) along one axis"""
    if s["dim"] != r["dim"]:
        return None
    return t.slice(x, s["dim"], r["start"] + s["start"], r["start"] + s["stop"])


@law(
    "s := slice(c := cat(a, b))",
    exactness="bitwise",
    example=[
        "slice(cat([2, 3], [2, 4], dim=1), dim=1, start=3, stop=7)",
        "slice(cat([2, 3], [2, 4], dim=1), dim=0, start=0, stop=1)",
    ],
)
def slice_of_pair(t: Builder, s: Handle, c: Handle, a: Handle, b: Handle) -> Handle | None:
    """slice(cat(a, b)) = slice(a) or slice(b) when it lies in one, cat(slice(a), slice(b)) across the other axes"""
    dim, start, stop, border = c["dim"], s["start"], s["stop"], a.shape[c["dim"]]
    if s["dim"] != dim:
        return t.cat([t.slice(x, s["dim"], start, stop) for x in (a, b)], dim)
    if stop <= border:
        return t.slice(a, dim, start, stop)
    return t.slice(b, dim, start - border, stop - border) if start >= border else None


@law("s := slice(m := matmul(a, b))", example="slice(matmul([2, 4, 3], [2, 3, 5]), dim=0, start=1, stop=2)")
def slice_of_batch_of_matmuls(t: Builder, s: Handle, m: Handle, a: Handle, b: Handle) -> Handle | None:
    """slice(A B) = slice(A) slice(B) for batches"""
    if s["dim"] >= m.rank - 2 or a.rank != b.rank:
        return None
    return t.matmul(*(t.slice(x, s["dim"], s["start"], s["stop"]) for x in (a, b)))


@law(
    "s := slice(m := matmul(a, b))",
    example="slice(matmul([2, 4, 3], [3, 5]), dim=2, start=1, stop=2)",
    refused=[
        "slice(matmul([2, 4, 3], [3, 5]), dim=1, start=1, stop=2)",
        "slice(matmul([2, 4, 3], [2, 3, 5]), dim=2, start=1, stop=2)",
    ],
)
def columns_of_product_with_matrix(t: Builder, s: Handle, m: Handle, a: Handle, b: Handle) -> Handle | None:
    """Some columns of A B = A (those of B) for rows of higher rank"""
    return t.matmul(a, t.slice(b, 1, s["start"], s["stop"])) if s["dim"] == m.rank - 1 and a.rank > b.rank else None


@law(
    "s := slice(y := conv(x, w))",
    example="slice(conv([2, 3, 4, 4], [5, 3, 2, 2]), dim=1, start=1, stop=2)",
    refused="slice(conv([2, 4, 4, 4], [4, 2, 2, 2], groups=2), dim=1, start=1, stop=2)",
)
def slice_of_output_channels(t: Builder, s: Handle, y: Handle, x: Handle, w: Handle) -> Handle | None:
    """slice(conv(x, w)) = conv(x, slice(w)) for output channels"""
    return t.like(y, x, t.slice(w, 0, s["start"], s["stop"])) if s["dim"] == 1 and y["groups"] == 1 else None


@law(
    "s := slice(e := embedding(w, i))",
    exactness="bitwise",
    example="slice(embedding([9, 4], integers(2, 5)), dim=2, start=0, stop=1)",
    refused="slice(embedding([9, 4], integers(2, 5)), dim=1, start=0, stop=1)",
)
def columns_of_embedding(t: Builder, s: Handle, e: Handle, w: Handle, i: Handle) -> Handle | None:
    """Some columns of embedding(w, i) = embedding(those of w, i)"""
    return t.like(e, t.slice(w, 1, s["start"], s["stop"]), i) if s["dim"] == e.rank - 1 else None


@law(
    "s := slice(e := embedding(w, i))",
    exactness="bitwise",
    example="slice(embedding([9, 4], integers(2, 5)), dim=1, start=0, stop=1)",
    refused="slice(embedding([9, 4], integers(2, 5)), dim=2, start=0, stop=1)",
    assumes={"i": "in_range"},
)
def positions_of_embedding(t: Builder, s: Handle, e: Handle, w: Handle, i: Handle) -> Handle | None:
    """embedding(w, i) read at some positions = embedding(w, those of i); the others are no longer checked"""
    return t.like(e, w, t.slice(i, s["dim"], s["start"], s["stop"])) if s["dim"] < e.rank - 1 else None


@law(
    "s := slice(y := sdpa(q, k, v))",
    example=[
        "slice(sdpa([1, 2, 5, 4], [1, 2, 5, 4], [1, 2, 5, 4]), dim=2, start=1, stop=3)",
        "slice(sdpa([1, 2, 5, 4], [1, 2, 5, 4], [1, 2, 5, 4], causal=True), dim=2, start=3, stop=4)",
    ],
    refused="slice(sdpa([1, 2, 5, 4], [1, 2, 5, 4], [1, 2, 5, 4], causal=True), dim=2, start=1, stop=3)",
)
def slice_through_attention(t: Builder, s: Handle, y: Handle, q: Handle, k: Handle, v: Handle) -> Handle | None:
    """Attention read for some queries, heads or images is attention of those; one causal query sees its past alone"""
    dim, start, stop = s["dim"], s["start"], s["stop"]
    if dim == 3:  # the fused kernels want values as wide as keys
        return None
    if dim < 2:
        return t.like(y, *(t.slice(x, dim, start, stop) for x in (q, k, v)))
    if not y["causal"]:
        return t.like(y, t.slice(q, 2, start, stop), k, v)
    if stop - start != 1 or q.shape[2] != k.shape[2]:
        return None
    past = [t.slice(x, 2, 0, stop) for x in (k, v)]
    return t.like(y, t.slice(q, 2, start, stop), *past, causal=False)


@law(
    "s := slice(y := sdpa(q, k, v, m))",
    example="slice(sdpa([1, 2, 5, 4], [1, 2, 5, 4], [1, 2, 5, 4], [1, 1, 5, 5]), dim=2, start=1, stop=2)",
)
def slice_through_masked_attention(
    t: Builder, s: Handle, y: Handle, q: Handle, k: Handle, v: Handle, m: Handle
) -> Handle | None:
    """Masked attention read for some queries is attention of those under their rows of the mask"""
    if s["dim"] != 2 or y["causal"] or m.rank != 4:
        return None
    mask = _cut(t, s, m, y.shape[2], 4) if m.shape[2] == q.shape[2] else m
    return t.like(y, t.slice(q, 2, s["start"], s["stop"]), k, v, mask)


# Elements read by indices


INDEXED = [Place("index", 2), Place("index", 3)]
_OF_OPERATION = {
    2: "index({}([4, 6], [4, 1]), integers(2), first=0)",
    3: "index({}([2, 4, 6], [4, 1]), integers(2), integers(2), first=0)",
}


def _places(g: Handle) -> tuple[int, int, int]:
    """The first of the indexed axes, how many there are, and how many axes come in their place."""
    count = len(g.operands) - 1
    return g["first"], count, g.rank - g.operands[0].rank + count


def _indexed(t: Builder, g: Handle, x: Handle) -> Handle:
    """The elements of ``x`` that the look-up ``g`` reads, where x is broadcast to what g is applied to."""
    y = g.operands[0]
    first, count, instead = _places(g)
    own = first - (y.rank - x.rank)
    axes = slice(max(own, 0), max(own + count, 0))
    sizes = x.shape[axes]
    if sizes == y.shape[first : first + count]:
        return t.on(g, 0, x, first=own)
    if any(n != 1 for n in sizes):  # x varies along some of the indexed axes alone
        shape = aligned(x.shape, y.rank)
        whole = (*shape[:first], *y.shape[first : first + count], *shape[first + count :])
        return t.on(g, 0, t.expand(t.view(x, shape), whole))
    return t.view(x, (*x.shape[: axes.start], *(1,) * (instead if sizes else 0), *x.shape[axes.stop :]))


@law(
    "g := G(y := F(a, b))",
    exactness="bitwise",
    F=pointwise(2),
    G=INDEXED,
    example=lambda F, G: [_OF_OPERATION[G.arity].format(F.op)],
    refused=lambda F, G: [f"index({F.op}([4, 6], [4, 6]), integers(9), first=0)"] if G.arity == 2 else [],
)
def look_up_goes_before_operation(t: Builder, g: Handle, y: Handle, a: Handle, b: Handle) -> Handle | None:
    """f(a, b)[i] = f(a[i], b[i]) for a look-up that reads fewer elements"""
    if g.numel >= y.numel:
        return None
    return t.like(y, *(_indexed(t, g, x) for x in (a, b)))


@law(
    "g := G(m := matmul(a, b))",
    G=INDEXED,
    example=lambda G: (
        ["index(matmul([2, 4, 3], [3, 5]), integers(2), integers(2), first=0)"]
        if G.arity == 3
        else ["index(matmul([4, 3], [3, 5]), integers(1, 2), first=0)"]
    ),
    refused=lambda G: ["index(matmul([4, 3], [3, 5]), integers(1, 2), first=1)"] if G.arity == 2 else [],
)
def look_up_goes_before_product(t: Builder, g: Handle, m: Handle, a: Handle, b: Handle) -> Handle | None:
    """(A B)[i] = A[i] B for rows, where other axes come in place of those that are read"""
    first, count, instead = _places(g)
    if g.numel >= m.numel or b.rank != 2 or instead == count or first + count > m.rank - 1:
        return None
    return t.matmul(t.on(g, 0, a), b)


@law(
    "g := G(r := reduce(x))",
    G=INDEXED,
    example=lambda G: (
        ["index(reduce([4, 5, 3], kind='sum', dims=[2]), integers(2), integers(2), first=0)"]
        if G.arity == 3
        else ["index(reduce([4, 3], kind='sum', dims=[1]), integers(1, 2), first=0)"]
    ),
    refused=lambda G: ["index(reduce([4, 3], kind='sum', dims=[1]), integers(1, 2), first=1)"] if G.arity == 2 else [],
)
def look_up_goes_before_reduction(t: Builder, g: Handle, r: Handle, x: Handle) -> Handle | None:
    """(Σ x)[i] = Σ x[i] over other axes, where other axes come in place of those that are read"""
    first, count, instead = _places(g)
    if g.numel >= r.numel or instead == count or any(first <= d < first + count for d in r["dims"]):
        return None
    return t.like(r, t.on(g, 0, x), dims=tuple(d if d < first else d + instead - count for d in r["dims"]))
