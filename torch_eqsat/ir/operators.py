"""The tensor language: one table of operators, each with its arity, its shape-and-dtype rule and its traits.

The language is small on purpose. An operator of the user's graph that it does not know is a ``fx`` node: opaque, with
its operands, so that everything around it is still optimized.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.ir.types import TensorType, broadcast_shapes

Attrs = Mapping[str, Any]
Infer = Callable[[Attrs, Sequence[TensorType]], TensorType]


@dataclass(frozen=True, slots=True)
class Operator:
    """``arity`` None means variadic. Traits: "pointwise", "commutative", "heavy" (priced by measuring), "view"
    (moves no data), "selection" (every output element is one input element), "factory" (no operands, constant),
    "monotone" (never decreasing), "odd" (f(−x) = −f(x)), "zero" (f(0) = 0). Which axes an operator acts on and in
    which operands it is linear depends on attributes: see torch_eqsat.ir.traits."""

    name: str
    arity: int | None
    infer: Infer
    traits: frozenset[str] = frozenset()


def require(condition: bool, message: str) -> None:
    """Raise TypeMismatchError with ``message`` unless ``condition`` holds."""
    if not condition:
        raise TypeMismatchError(message)


def _declared(attrs: Attrs, _: Sequence[TensorType]) -> TensorType:
    return TensorType(attrs["shape"], attrs["dtype"])


def _arithmetic(_: Attrs, types: Sequence[TensorType]) -> TensorType:
    require(len({t.dtype for t in types}) == 1, f"operands of different dtype: {types}")
    return TensorType(broadcast_shapes(t.shape for t in types), types[0].dtype)


def _pointwise(attrs: Attrs, types: Sequence[TensorType]) -> TensorType:
    return TensorType(broadcast_shapes(t.shape for t in types), attrs["dtype"])


def _function(_: Attrs, types: Sequence[TensorType]) -> TensorType:
    """An elementwise function of floating operands of one dtype."""
    require(types[0].is_floating, f"a function of {types[0].dtype}")
    return _arithmetic(_, types)


def _where(_: Attrs, types: Sequence[TensorType]) -> TensorType:
    require(types[0].dtype == "bool", f"a condition of dtype {types[0].dtype}")
    require(types[1].dtype == types[2].dtype, f"a choice between {types[1].dtype} and {types[2].dtype}")
    return TensorType(broadcast_shapes(t.shape for t in types), types[1].dtype)


def _equal(_: Attrs, types: Sequence[TensorType]) -> TensorType:
    return TensorType(_arithmetic(_, types).shape, "bool")


def _same(_: Attrs, types: Sequence[TensorType]) -> TensorType:
    return types[0]


def _convert(attrs: Attrs, types: Sequence[TensorType]) -> TensorType:
    return TensorType(types[0].shape, attrs["dtype"])


def _along(attrs: Attrs, types: Sequence[TensorType]) -> TensorType:
    """An operator along axis ``dim`` that keeps the shape."""
    require(0 <= attrs["dim"] < types[0].rank, f"axis {attrs['dim']} of rank {types[0].rank}")
    return types[0]


def _diagonal(_: Attrs, types: Sequence[TensorType]) -> TensorType:
    """The main diagonals [..., n] of square matrices [..., n, n]."""
    x = types[0]
    require(x.rank >= 2 and x.shape[-1] == x.shape[-2], f"the diagonal of {x.shape}")
    return TensorType(x.shape[:-1], x.dtype)


def _matmul(_: Attrs, types: Sequence[TensorType]) -> TensorType:
    a, b = types
    require(a.dtype == b.dtype and a.is_floating, f"matmul of {a.dtype} and {b.dtype}")
    require(a.rank == b.rank and a.rank in (2, 3), f"matmul of ranks {a.rank} and {b.rank}")
    require(a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2], f"matmul of {a.shape} and {b.shape}")
    return TensorType((*a.shape[:-1], b.shape[-1]), a.dtype)


def _conv(attrs: Attrs, types: Sequence[TensorType]) -> TensorType:
    x, w = types
    spatial = len(attrs["stride"])
    require(x.dtype == w.dtype, f"convolution of {x.dtype} with {w.dtype}")
    require(x.rank == w.rank == spatial + 2, f"convolution of ranks {x.rank}, {w.rank} over {spatial} axes")
    groups = attrs["groups"]
    require(groups > 0 and min((*attrs["stride"], *attrs["dilation"])) > 0, f"convolution by {attrs}")
    require(all(len(attrs[name]) == spatial for name in ("padding", "dilation")), f"padding and dilation of {attrs}")
    require(x.shape[1] == w.shape[1] * groups and w.shape[0] % groups == 0, f"channels of {x.shape} and {w.shape}")
    sizes = [
        (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, padding, dilation in zip(
            x.shape[2:], w.shape[2:], attrs["stride"], attrs["padding"], attrs["dilation"], strict=True
        )
    ]
    require(min(sizes) > 0, f"kernel {w.shape} is larger than its padded input {x.shape}")
    return TensorType((x.shape[0], w.shape[0], *sizes), x.dtype)


def _conv_transpose(attrs: Attrs, types: Sequence[TensorType]) -> TensorType:
    """[N, C, *spatial] with [C, O/groups, *window], without dilation or output padding."""
    x, w = types
    spatial, groups = len(attrs["stride"]), attrs["groups"]
    require(x.dtype == w.dtype, f"transposed convolution of {x.dtype} with {w.dtype}")
    require(x.rank == w.rank == spatial + 2 == len(attrs["padding"]) + 2, f"ranks {x.rank}, {w.rank} and {attrs}")
    require(groups > 0 and min(attrs["stride"]) > 0, f"transposed convolution by {attrs}")
    require(x.shape[1] == w.shape[0] and w.shape[0] % groups == 0, f"channels of {x.shape} and {w.shape}")
    windows = zip(x.shape[2:], w.shape[2:], attrs["stride"], attrs["padding"], strict=True)
    sizes = [(size - 1) * stride - 2 * padding + kernel for size, kernel, stride, padding in windows]
    require(min(sizes) > 0, f"nothing is left of {x.shape} with {w.shape} by {attrs}")
    return TensorType((x.shape[0], w.shape[1] * groups, *sizes), x.dtype)


def _sdpa(attrs: Attrs, types: Sequence[TensorType]) -> TensorType:
    q, k, v = types[:3]
    require(q.rank == k.rank == v.rank == 4, "attention takes [batch, heads, length, width]")
    require(q.dtype == k.dtype == v.dtype, f"attention over {q.dtype}, {k.dtype}, {v.dtype}")
    require(q.shape[:2] == k.shape[:2] == v.shape[:2], f"attention over {q.shape}, {k.shape}, {v.shape}")
    # The fused kernels want values as wide as keys.
    require(q.shape[3] == k.shape[3] and k.shape[2:] == v.shape[2:], f"attention over {q.shape}, {k.shape}, {v.shape}")
    return TensorType((*q.shape[:3], v.shape[3]), q.dtype)


def _permute(attrs: Attrs, types: Sequence[TensorType]) -> TensorType:
    dims = attrs["dims"]
    require(sorted(dims) == list(range(types[0].rank)), f"permute {dims} of rank {types[0].rank}")
    return TensorType(tuple(types[0].shape[d] for d in dims), types[0].dtype)


def _view(attrs: Attrs, types: Sequence[TensorType]) -> TensorType:
    require(math.prod(attrs["shape"]) == types[0].numel, f"view of {types[0].shape} as {attrs['shape']}")
    return TensorType(attrs["shape"], types[0].dtype)


def _expand(attrs: Attrs, types: Sequence[TensorType]) -> TensorType:
    shape = attrs["shape"]
    require(broadcast_shapes([types[0].shape, shape]) == shape, f"expand of {types[0].shape} to {shape}")
    return TensorType(shape, types[0].dtype)


def _slice(attrs: Attrs, types: Sequence[TensorType]) -> TensorType:
    dim, start, stop = attrs["dim"], attrs["start"], attrs["stop"]
    shape = list(types[0].shape)
    require(0 <= dim < len(shape) and 0 <= start < stop <= shape[dim], f"slice {start}:{stop} of axis {dim} of {shape}")
    shape[dim] = stop - start
    return TensorType(tuple(shape), types[0].dtype)


def _cat(attrs: Attrs, types: Sequence[TensorType]) -> TensorType:
    dim, first = attrs["dim"], types[0]
    require(0 <= dim < first.rank, f"concatenation along {dim} of rank {first.rank}")
    for t in types[1:]:
        require(t.dtype == first.dtype and t.rank == first.rank, f"concatenation of {first} and {t}")
        same = t.shape[:dim] == first.shape[:dim] and t.shape[dim + 1 :] == first.shape[dim + 1 :]
        require(same, f"concatenation along {dim} of {first.shape} and {t.shape}")
    total = sum(t.shape[dim] for t in types)
    return TensorType((*first.shape[:dim], total, *first.shape[dim + 1 :]), first.dtype)


def _pad(attrs: Attrs, types: Sequence[TensorType]) -> TensorType:
    require(len(attrs["pads"]) == types[0].rank, f"pads {attrs['pads']} of rank {types[0].rank}")
    shape = tuple(n + low + high for n, (low, high) in zip(types[0].shape, attrs["pads"], strict=True))
    return TensorType(shape, types[0].dtype)


def _filter_bank(attrs: Attrs, types: Sequence[TensorType]) -> TensorType:
    """Filter i is Σₖ coefficients[i][k] · x[step · t + dilation · k] at each place t along ``dim``; the filters lie
    side by side along ``into``."""
    x, dim, into, step, dilation = types[0], *(attrs[name] for name in ("dim", "into", "step", "dilation"))
    taps = {len(row) for row in attrs["coefficients"]}
    require(x.is_floating and len(taps) == 1, f"filters of {x.dtype} with {sorted(taps)} taps")
    require(0 <= dim < x.rank and 0 <= into < x.rank and min(step, dilation) > 0, f"filters by {attrs}")
    require(all(map(any, attrs["coefficients"])), f"a filter of zeros alone: {attrs['coefficients']}")
    shape = list(x.shape)
    shape[dim] = (x.shape[dim] - dilation * (taps.pop() - 1) - 1) // step + 1
    require(shape[dim] > 0, f"filters {attrs['coefficients']} are longer than axis {dim} of {x.shape}")
    shape[into] *= len(attrs["coefficients"])
    return TensorType(tuple(shape), x.dtype)


def _reduce(attrs: Attrs, types: Sequence[TensorType]) -> TensorType:
    dims, x = attrs["dims"], types[0]
    require(x.is_floating, f"a reduction of {x.dtype}: aten widens integers")
    require(all(0 <= d < x.rank for d in dims), f"reduction over {dims} of rank {x.rank}")
    require(len(set(dims)) == len(dims), f"reduction over {dims}, an axis twice")
    return TensorType(tuple(1 if i in dims else n for i, n in enumerate(x.shape)), x.dtype)


def _pool(attrs: Attrs, types: Sequence[TensorType]) -> TensorType:
    x = types[0]
    require(x.rank == 4 and not attrs.get("ceil_mode"), "pooling takes [N, C, H, W], without ceil mode")
    require(x.is_floating, f"pooling of {x.dtype}")
    require(min(attrs["stride"]) > 0 and min(attrs["kernel"]) > 0, f"pooling by {attrs}")
    sizes = [
        (size + 2 * padding - kernel) // stride + 1
        for size, kernel, stride, padding in zip(
            x.shape[2:], attrs["kernel"], attrs["stride"], attrs["padding"], strict=True
        )
    ]
    require(min(sizes) > 0, f"pooling window {attrs['kernel']} is larger than {x.shape}")
    return TensorType((*x.shape[:2], *sizes), x.dtype)


def _index(attrs: Attrs, types: Sequence[TensorType]) -> TensorType:
    """x indexed on its trailing axes, from ``first`` on, by broadcast integer tensors."""
    x, indices = types[0], types[1:]
    require(attrs["first"] + len(indices) == x.rank, "indices must cover the trailing axes")
    return TensorType((*x.shape[: attrs["first"]], *broadcast_shapes(t.shape for t in indices)), x.dtype)


def _embedding_bag(_: Attrs, types: Sequence[TensorType]) -> TensorType:
    """Sums of table rows: bag b sums the rows that indices ``offsets[b]`` to ``offsets[b + 1]`` name."""
    table, index, offsets = types
    require(table.rank == 2 and index.rank == offsets.rank == 1, f"bags of {table}, {index}, {offsets}")
    return TensorType((offsets.shape[0], table.shape[1]), table.dtype)


def _embedding(_: Attrs, types: Sequence[TensorType]) -> TensorType:
    table, index = types
    require(table.rank == 2, f"embedding table of rank {table.rank}")
    return TensorType((*index.shape, table.shape[1]), table.dtype)


_TABLE: list[tuple[str, int | None, Infer, str]] = [
    # name, arity, type rule, traits
    ("input", 0, _declared, ""),  # a value that the graph is given, or a term of constants alone
    ("scalar", 0, _declared, "factory"),  # shape (), attribute value
    ("dirac", 0, _declared, "factory"),  # the kernel of the identity convolution
    ("fx", None, _declared, ""),  # an operator as captured
    ("pointwise", None, _pointwise, "pointwise"),  # any other elementwise operator; attribute uid names it
    ("add", 2, _arithmetic, "pointwise commutative"),
    ("mul", 2, _arithmetic, "pointwise commutative"),
    ("div", 2, _function, "pointwise"),
    ("maximum", 2, _function, "pointwise commutative"),
    ("minimum", 2, _function, "pointwise commutative"),
    ("where", 3, _where, "pointwise"),
    ("equal", 2, _equal, "pointwise"),
    ("convert", 1, _convert, "pointwise"),  # to another dtype
    ("clamp", 1, _same, "pointwise monotone"),  # attributes low and high, either may be None
    ("relu", 1, _function, "pointwise monotone zero"),
    ("exp", 1, _function, "pointwise monotone"),
    ("log", 1, _function, "pointwise monotone"),
    ("sqrt", 1, _function, "pointwise monotone zero"),
    ("rsqrt", 1, _function, "pointwise"),
    ("reciprocal", 1, _function, "pointwise odd"),
    ("sigmoid", 1, _function, "pointwise monotone"),
    ("tanh", 1, _function, "pointwise monotone odd zero"),
    ("erf", 1, _function, "pointwise monotone odd zero"),
    ("abs", 1, _function, "pointwise zero"),
    ("matmul", 2, _matmul, "heavy"),
    ("conv", 2, _conv, "heavy"),
    ("conv_transpose", 2, _conv_transpose, "heavy"),
    ("sdpa", None, _sdpa, "heavy"),
    ("permute", 1, _permute, "view selection"),
    ("view", 1, _view, "view selection"),
    ("expand", 1, _expand, "view selection"),
    ("slice", 1, _slice, "view selection"),
    ("cat", None, _cat, ""),
    ("pad", 1, _pad, ""),  # with zeros
    # Linear, but not stated as such: what it is linear in is many small sums, of which laws would make many more.
    ("filter_bank", 1, _filter_bank, ""),
    ("reduce", 1, _reduce, "reduction"),  # keeps the reduced axes with size 1; attribute kind names it
    ("avg_pool", 1, _pool, "reduction"),
    ("max_pool", 1, _pool, "reduction"),  # padded with −∞
    ("cumsum", 1, _along, ""),
    ("flip", 1, _along, "selection"),
    ("diagonal", 1, _diagonal, "view selection"),
    ("index", None, _index, "selection"),
    ("embedding", 2, _embedding, "selection"),
    ("embedding_bag", 3, _embedding_bag, ""),
]
OPERATORS = {name: Operator(name, arity, infer, frozenset(traits.split())) for name, arity, infer, traits in _TABLE}


def infer_type(op: str, attrs: Attrs, types: Sequence[TensorType]) -> TensorType:
    """The type of ``op`` applied to operands of ``types``.

    Raises TypeMismatchError when the operands do not fit.

    >>> infer_type("matmul", {}, [TensorType((2, 3), "float32"), TensorType((3, 5), "float32")]).shape
    (2, 5)
    """
    operator = OPERATORS[op]
    if operator.arity is not None:
        require(len(types) == operator.arity, f"{op} takes {operator.arity} operands, not {len(types)}")
    return operator.infer(attrs, types)
