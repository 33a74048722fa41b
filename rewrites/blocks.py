"""Concatenation: of results, of operands, and block matrices.

principles.py has the law that a map of one tensor commutes with concatenation along axes on which it does not act. Laws
that take a concatenation apart or put one together without saving an operator are expansive. Laws that merge two
matmuls, two convolutions or two functions into one are not.
"""

from itertools import accumulate

from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.laws.law import law
from torch_eqsat.laws.pattern import Place, pointwise


def _two(F: Place, first: str, second: str) -> str:
    """F of two operands, with a condition as first operand if F is ``where``."""
    condition = f"booleans{first.replace('[', '(').replace(']', ')')}, " if F.op == "where" else ""
    return f"{F.op}({condition}{first}, {second})"


@law("c := cat(y := F(a), z := F(b))", F=pointwise(1), exactness="bitwise", example="cat(F([2, 3]), F([2, 4]), dim=1)")
def functions_of_parts_join(t: Builder, c: Handle, y: Handle, z: Handle, a: Handle, b: Handle) -> Handle | None:
    """cat(f(a), f(b)) = f(cat(a, b))"""
    return t.like(y, t.cat([a, b], c["dim"])) if y.attrs == z.attrs and a.type.dtype == b.type.dtype else None


@law(
    "y := F(c := cat(a, b))",
    F=pointwise(1),
    exactness="bitwise",
    example="F(cat([2, 3], [2, 4], dim=1))",
    expansive=True,
)
def function_of_parts(t: Builder, y: Handle, c: Handle, a: Handle, b: Handle) -> Handle:
    """f(cat(a, b)) = cat(f(a), f(b))"""
    return t.cat([t.like(y, a), t.like(y, b)], c["dim"])


@law(
    "m := cat(y := F(a, b), z := F(c, d))",
    F=pointwise(2),
    exactness="bitwise",
    whole="a b c d",
    example=lambda F: [f"cat({_two(F, '[2, 3]', '[2, 3]')}, {_two(F, '[2, 4]', '[2, 4]')}, dim=1)"],
    refused=lambda F: [f"cat({_two(F, '[2, 3]', '[1, 3]')}, {_two(F, '[2, 4]', '[2, 4]')}, dim=1)"],
    expansive=True,
)
def operations_on_parts_join(
    t: Builder, m: Handle, y: Handle, z: Handle, a: Handle, b: Handle, c: Handle, d: Handle
) -> Handle | None:
    """cat(f(a, b), f(c, d)) = f(cat(a, c), cat(b, d)) for operands of the results' shapes"""
    if not a.shape == b.shape == y.shape or not c.shape == d.shape == z.shape or y.attrs != z.attrs:
        return None
    return t.like(y, t.cat([a, c], m["dim"]), t.cat([b, d], m["dim"]))


@law(
    "y := F(m := cat(a, b), n := cat(c, d))",
    F=pointwise(2),
    exactness="bitwise",
    example="F(cat([2, 3], [2, 4], dim=1), cat([2, 3], [2, 4], dim=1))",
    refused="F(cat([2, 3], [2, 4], dim=1), cat([2, 4], [2, 3], dim=1))",
    expansive=True,
)
def operation_on_parts(
    t: Builder, y: Handle, m: Handle, n: Handle, a: Handle, b: Handle, c: Handle, d: Handle
) -> Handle | None:
    """f(cat(a, b), cat(c, d)) = cat(f(a, c), f(b, d)) for operands of one shape, cut at one place"""
    if m.attrs != n.attrs or a.shape != c.shape or b.shape != d.shape:
        return None
    return t.cat([t.like(y, a, c), t.like(y, b, d)], m["dim"])


@law(
    "m := cat(n := cat(a, b), o := cat(c, d))",
    exactness="bitwise",
    example="cat(cat([2, 3], [2, 4], dim=1), cat([5, 3], [5, 4], dim=1), dim=0)",
    refused="cat(cat([2, 3], [2, 4], dim=1), cat([5, 4], [5, 3], dim=1), dim=0)",
    expansive=True,
)
def block_matrix_by_columns(
    t: Builder, m: Handle, n: Handle, o: Handle, a: Handle, b: Handle, c: Handle, d: Handle
) -> Handle | None:
    """cat(cat(a, b), cat(c, d)) = cat(cat(a, c), cat(b, d)) along the other axis: a block matrix by rows or columns"""
    if n["dim"] != o["dim"] or n["dim"] == m["dim"] or a.shape[n["dim"]] != c.shape[n["dim"]]:
        return None
    return t.cat([t.cat([a, c], m["dim"]), t.cat([b, d], m["dim"])], n["dim"])


def _nested(count: int) -> list[str]:
    return [f"cat({', '.join(f'[2, {n + 1}]' for n in range(count))}, dim=1)"]


@law("c := C(x)", C=[Place("cat", 3), Place("cat", 4)], exactness="bitwise", example=lambda C: _nested(C.arity))
def cat_of_several(t: Builder, c: Handle) -> Handle:
    """cat(a, b, c, …) = cat(cat(a, b), c, …)"""
    first, second, *rest = c.operands
    return t.cat([t.cat([first, second], c["dim"]), *rest], c["dim"])


@law(
    "c := cat(s := slice(x), r := slice(x))",
    normalises=True,
    exactness="bitwise",
    example="cat(slice(x := [6, 2], dim=0, start=1, stop=3), slice(x, dim=0, start=3, stop=5), dim=0)",
    refused=[
        "cat(slice(x := [6, 2], dim=0, start=1, stop=3), slice(x, dim=0, start=2, stop=4), dim=0)",
        "cat(slice(x := [6, 2], dim=0, start=1, stop=3), slice(x, dim=0, start=3, stop=5), dim=1)",
    ],
)
def neighbouring_slices_join(t: Builder, c: Handle, s: Handle, r: Handle, x: Handle) -> Handle | None:
    """cat(x[i:j], x[j:k]) = x[i:k]"""
    if not s["dim"] == r["dim"] == c["dim"] or s["stop"] != r["start"]:
        return None
    return t.slice(x, c["dim"], s["start"], r["stop"])


# Block matrices


@law(
    "m := add(matmul(a, u), matmul(b, v))",
    expansive=True,
    example="add(matmul([2, 3], [3, 4]), matmul([2, 5], [5, 4]))",
)
def products_join(t: Builder, m: Handle, a: Handle, b: Handle, u: Handle, v: Handle) -> Handle:
    """A U + B V = [A, B] [U; V]"""
    return t.matmul(t.cat([a, b], m.rank - 1), t.cat([u, v], u.rank - 2))


@law(
    "m := matmul(c := C(x), w)",
    C=[Place("cat", 2), Place("cat", 3), Place("cat", 4)],
    example=lambda C: [
        f"matmul({_nested(C.arity)[0]}, [{sum(range(1, C.arity + 1))}, 5])",
    ],
    refused="matmul(cat([2, 3], [2, 3], dim=0), [3, 4])",
    expansive=True,
    assumes={"w": "no_overflow"},
)
def product_with_concatenation(t: Builder, m: Handle, c: Handle, w: Handle) -> Handle | None:
    """[A, B, …] W = A W₁ + B W₂ + … for the rows W₁, W₂, … of W"""
    if c["dim"] != m.rank - 1:
        return None
    stops = list(accumulate(part.shape[-1] for part in c.operands))
    total = None
    for part, stop in zip(c.operands, stops, strict=True):
        term = t.matmul(part, t.slice(w, w.rank - 2, stop - part.shape[-1], stop))
        total = term if total is None else t.add(total, term)
    return total


# Convolutions of parts


@law(
    "c := cat(y := conv(x, u), z := conv(x, v))",
    example="cat(conv(x := [1, 2, 5, 5], [3, 2, 3, 3]), conv(x, [4, 2, 3, 3]), dim=1)",
    refused="cat(conv(x := [1, 2, 5, 5], [2, 1, 3, 3], groups=2), conv(x, [2, 1, 3, 3], groups=2), dim=1)",
)
def output_channels_join(t: Builder, c: Handle, y: Handle, z: Handle, x: Handle, u: Handle, v: Handle) -> Handle | None:
    """[conv(x, u), conv(x, v)] = conv(x, [u; v]) along output channels"""
    plain = c["dim"] == 1 and y.attrs == z.attrs and y["groups"] == 1
    return t.like(y, x, t.cat([u, v], 0)) if plain else None


@law(
    "add(y := conv(a, u), z := conv(b, v))",
    example="add(conv([1, 2, 5, 5], [3, 2, 3, 3]), conv([1, 4, 5, 5], [3, 4, 3, 3]))",
    refused="add(conv([1, 2, 5, 5], [2, 1, 3, 3], groups=2), conv([1, 2, 5, 5], [2, 1, 3, 3], groups=2))",
    expansive=True,
)
def input_channels_join(t: Builder, y: Handle, z: Handle, a: Handle, u: Handle, b: Handle, v: Handle) -> Handle | None:
    """conv(a, u) + conv(b, v) = conv([a, b], [u, v]) along input channels"""
    if y.attrs != z.attrs or y["groups"] != 1:
        return None
    return t.like(y, t.cat([a, b], 1), t.cat([u, v], 1))


@law(
    "y := conv(c := cat(a, b), w)",
    example="conv(cat([1, 2, 5, 5], [1, 4, 5, 5], dim=1), [3, 6, 1, 1])",
    refused=[
        "conv(cat([1, 2, 5, 5], [1, 2, 5, 5], dim=1), [4, 2, 1, 1], groups=2)",
        "conv(cat([1, 2, 5, 5], [1, 2, 5, 5], dim=0), [4, 2, 1, 1])",
    ],
    expansive=True,
    assumes={"w": "no_overflow"},
)
def input_channels_part(t: Builder, y: Handle, c: Handle, a: Handle, b: Handle, w: Handle) -> Handle | None:
    """conv([a, b], w) = conv(a, w₁) + conv(b, w₂) for the input channels w₁, w₂ of w"""
    if c["dim"] != 1 or y["groups"] != 1:
        return None
    border, end = a.shape[1], w.shape[1]
    return t.add(t.like(y, a, t.slice(w, 1, 0, border)), t.like(y, b, t.slice(w, 1, border, end)))


@law(
    "c := cat(y := conv(a, u), z := conv(b, v))",
    example="cat(conv([1, 2, 5, 5], [3, 2, 3, 3]), conv([1, 4, 5, 5], [6, 2, 3, 3], groups=2), dim=1)",
    refused="cat(conv([1, 2, 5, 5], [1, 2, 3, 3]), conv([1, 2, 5, 5], [3, 2, 3, 3]), dim=1)",
    expansive=True,
)
def groups_join(
    t: Builder, c: Handle, y: Handle, z: Handle, a: Handle, u: Handle, b: Handle, v: Handle
) -> Handle | None:
    """[conv(a, u), conv(b, v)] = conv([a, b], [u; v]) in groups, for groups of one size"""
    groups = y["groups"] + z["groups"]
    same = all(y[name] == z[name] for name in ("stride", "padding", "dilation"))
    if c["dim"] != 1 or not same or u.shape[1] != v.shape[1] or u.shape[0] * z["groups"] != v.shape[0] * y["groups"]:
        return None
    return t.like(y, t.cat([a, b], 1), t.cat([u, v], 0), groups=groups)


# Reductions of parts


@law(
    "r := reduce(c := cat(a, b))",
    example="reduce(cat([2, 3], [2, 4], dim=1), kind='sum', dims=[1])",
    refused=[
        "reduce(cat([2, 3], [2, 4], dim=1), kind='mean', dims=[1])",
        "reduce(cat([2, 3], [2, 4], dim=1), kind='sum', dims=[0])",
    ],
)
def reduction_of_parts(t: Builder, r: Handle, c: Handle, a: Handle, b: Handle) -> Handle | None:
    """Σ [a, b] = Σ a + Σ b along the sum"""
    return t.add(t.like(r, a), t.like(r, b)) if r["kind"] == "sum" and c["dim"] in r["dims"] else None
