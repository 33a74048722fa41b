"""Convolutions are linear in the kernel, so scales, sums, paddings and identities move into it.

Batch normalisation is not a special case: it is a factor and a shift per channel (elementwise.py gathers them).
"""

from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.laws.law import law
from torch_eqsat.rewrites.shapes import aligned, is_pointwise_convolution, narrow, varies_only_along


def _per_output_channel(t: Builder, c: Handle, kernel: Handle) -> Handle:
    """``c`` (one value, or one per output channel) as a factor of a kernel [O, I, *k]."""
    return c if c.numel == 1 else t.view(c, (c.numel, *(1,) * (kernel.rank - 1)))


@law(
    "p := mul(y := conv(x, w), c)",
    example=[
        "mul(conv([1, 2, 5, 5], [3, 2, 3, 3]), [3, 1, 1])",
        "mul(conv([1, 4, 5], [4, 2, 3], groups=2), [1, 4, 1])",
    ],
    refused="mul(conv([1, 2, 5, 5], [3, 2, 3, 3]), [3, 1])",
    assumes={"x": "finite", "w": "no_overflow", "c": "no_overflow"},
)
def channel_scale_into_kernel(t: Builder, p: Handle, y: Handle, x: Handle, w: Handle, c: Handle) -> Handle | None:
    """conv(x, w) · c = conv(x, w · c) for a factor per output channel"""
    if not varies_only_along(c, {1}, y.rank) or p.shape != y.shape:
        return None
    return t.like(y, x, t.mul(w, _per_output_channel(t, c, w)))


@law(
    "add(y := conv(x, w), z := conv(x, u))",
    example="add(conv(x := [1, 2, 6, 6], [3, 2, 3, 3], stride=[2, 2], padding=[1, 1]), "
    "conv(x, [3, 2, 1, 1], stride=[2, 2]))",
    refused="add(conv(x := [1, 2, 5, 5], [2, 2, 3, 3], padding=[1, 1]), conv(x, [2, 1, 1, 1], groups=2))",
    assumes={"x": "finite"},
)
def kernels_of_one_input_take_one_size(
    t: Builder, y: Handle, z: Handle, x: Handle, w: Handle, u: Handle
) -> Handle | None:
    """conv(x, w; p) + conv(x, u; q) = conv(x, w; p) + conv(x, pad(u); p) when the kernels share their centre"""
    if y["stride"] != z["stride"] or y["groups"] != z["groups"] or w.shape == u.shape:
        return None
    pads = [(0, 0), (0, 0)]
    for k, small, p, q, d, e in zip(
        w.shape[2:], u.shape[2:], y["padding"], z["padding"], y["dilation"], z["dilation"], strict=True
    ):
        border = (k - small) // 2
        if (k - small) % 2 or border < 0 or p - q != border * d or (small > 1 and d != e):
            return None
        pads.append((border, border))
    return t.add(y, t.like(y, x, t.pad(u, pads)))


def _is_identity_shaped(y: Handle, x: Handle, w: Handle) -> bool:
    """Whether some kernel of w's shape makes ``y = conv(x, ·)`` the identity."""
    centred = all(k == 2 * p + 1 for k, p in zip(w.shape[2:], y["padding"], strict=True))
    return y.shape == x.shape and centred and all(n == 1 for n in y["stride"] + y["dilation"])


@law(
    "add(y := conv(x, w), x)",
    example=["add(conv(x := [1, 4, 5, 5], [4, 2, 3, 3], padding=[1, 1], groups=2), x)"],
    refused="add(conv(x := [1, 1, 5, 5], [2, 1, 3, 3], padding=[1, 1]), x)",
    assumes={"x": "finite"},
)
def identity_into_kernel(t: Builder, y: Handle, x: Handle, w: Handle) -> Handle | None:
    """conv(x, w) + x = conv(x, w + 1), where 1 is the kernel of the identity"""
    if not _is_identity_shaped(y, x, w):
        return None
    return t.like(y, x, t.add(w, t.dirac(w.shape, y["groups"], w.type.dtype)))


@law(
    "add(y := conv(x, w), m := mul(x, c))",
    example="add(conv(x := [1, 4, 5, 5], [4, 1, 3, 3], padding=[1, 1], groups=4), mul(x, [4, 1, 1]))",
    refused="add(conv(x := [1, 5, 5, 5], [5, 5, 3, 3], padding=[1, 1]), mul(x, [5, 1]))",
    assumes={"x": "finite"},
)
def scaled_identity_into_kernel(t: Builder, y: Handle, m: Handle, x: Handle, w: Handle, c: Handle) -> Handle | None:
    """conv(x, w) + x · c = conv(x, w + c · 1) for a factor per channel"""
    if not _is_identity_shaped(y, x, w) or m.shape != x.shape or not varies_only_along(c, {1}, x.rank):
        return None
    identity = t.dirac(w.shape, y["groups"], w.type.dtype)
    return t.like(y, x, t.add(w, t.mul(identity, _per_output_channel(t, c, w))))


def _is_like(t: Builder, r: Handle, x: Handle) -> bool:
    """Whether ``r`` is ``x``, a multiple of it, or a convolution of it. Such sums merge without regrouping, which would
    only make a sum for each subset of the branches."""
    return r.id == x.id or any(
        (node.op == "conv" and node.children[0] == x.id) or (node.op == "mul" and x.id in node.children)
        for node in t.forms(r)
    )


@law(
    "add(add(r, y := conv(x, w)), z := conv(x, u))",
    example="add(add([1, 3, 3, 3], conv(x := [1, 2, 5, 5], [3, 2, 3, 3])), conv(x, [3, 2, 3, 3]))",
)
def like_convolutions_meet(t: Builder, r: Handle, y: Handle, z: Handle, x: Handle) -> Handle | None:
    """(r + conv(x, w)) + conv(x, u) = r + (conv(x, w) + conv(x, u))"""
    return t.add(r, t.add(y, z)) if not _is_like(t, r, x) else None


@law(
    "add(add(r, y := conv(x, w)), m := mul(x, c))",
    example="add(add([1, 2, 5, 5], conv(x := [1, 2, 5, 5], [2, 2, 1, 1])), mul(x, [2, 1, 1]))",
)
def convolution_meets_scaled_input(t: Builder, r: Handle, y: Handle, m: Handle, x: Handle, c: Handle) -> Handle | None:
    """(r + conv(x, w)) + x · c = r + (conv(x, w) + x · c)"""
    return t.add(r, t.add(y, m)) if c.numel < m.numel and not _is_like(t, r, x) else None


@law(
    "z := conv(y := conv(x, w), u)",
    example="conv(conv([1, 2, 5, 5], [3, 2, 3, 3], padding=[1, 1]), [4, 3, 1, 1])",
    refused="conv(conv([1, 2, 5, 5], [3, 2, 3, 3]), [4, 3, 2, 2])",
    assumes={"x": "finite", "w": "no_overflow", "u": "no_overflow"},
)
def pointwise_convolution_composes(t: Builder, z: Handle, y: Handle, x: Handle, w: Handle, u: Handle) -> Handle | None:
    """conv1x1(conv(x, w), u) = conv(x, u w)"""
    if not is_pointwise_convolution(z, u) or z["groups"] != 1 or y["groups"] != 1:
        return None
    outer = t.view(u, u.shape[:2])
    inner = t.view(w, (w.shape[0], w.numel // w.shape[0]))
    return t.like(y, x, t.view(t.matmul(outer, inner), (u.shape[0], *w.shape[1:])))


@law(
    "y := conv(add(x, c), w)",
    example="conv(add([1, 3, 5, 5], [3, 1, 1]), [4, 3, 3, 3])",
    refused="conv(add([1, 3, 5, 5], [3, 1, 1]), [4, 3, 3, 3], padding=[1, 1])",
    assumes={"x|c": "no_cancellation", "x": "finite no_overflow"},
)
def shift_through_convolution(t: Builder, y: Handle, x: Handle, c: Handle, w: Handle) -> Handle | None:
    """conv(x + c, w) = conv(x, w) + (Σₖ w) c for a shift per channel and no padding"""
    per_channel = aligned(c.shape, x.rank) == (1, x.shape[1], *(1,) * (x.rank - 2)) if c.rank <= x.rank else False
    if any(y["padding"]) or y["groups"] != 1 or not per_channel or x.numel == c.numel:
        return None
    summed = t.view(t.reduce(w, "sum", range(2, w.rank)), w.shape[:2])
    shift = t.matmul(summed, t.view(c, (c.numel, 1)))
    return t.add(t.like(y, x, w), t.view(shift, (w.shape[0], *(1,) * (w.rank - 2))))


@law(
    "y := conv(add(a, b), w)",
    example="conv(add([1, 3, 5, 5], [1, 3, 5, 5]), [4, 3, 1, 1])",
    assumes={"a|b": "no_cancellation", "a": "finite no_overflow"},
)
def pointwise_convolution_distributes(t: Builder, y: Handle, a: Handle, b: Handle, w: Handle) -> Handle | None:
    """conv1x1(a + b, w) = conv1x1(a, w) + conv1x1(b, w)"""
    if not is_pointwise_convolution(y, w) or a.shape != b.shape:
        return None
    return t.add(t.like(y, a, w), t.like(y, b, w))


@law(
    "y := conv(add(a, b), w)",
    example="conv(add([1, 4, 5, 5], [1, 4, 5, 5]), [4, 2, 3, 3], padding=[1, 1], groups=2)",
    refused=["conv(add([1, 3, 5, 5], [1, 3, 5, 5]), [4, 3, 1, 1])", "conv(add([1, 3, 5, 5], [5]), [4, 3, 3, 3])"],
    expansive=True,
    assumes={"a|b": "no_cancellation", "a": "finite no_overflow"},
)
def convolution_distributes(t: Builder, y: Handle, a: Handle, b: Handle, w: Handle) -> Handle | None:
    """conv(a + b, w) = conv(a, w) + conv(b, w) for wider windows"""
    if is_pointwise_convolution(y, w) or a.shape != b.shape or narrow(a):
        return None
    return t.add(t.like(y, a, w), t.like(y, b, w))


@law(
    "y := conv(mul(x, c), w)",
    example=[
        "conv(mul([1, 3, 5, 5], [3, 1, 1]), [4, 3, 3, 3], padding=[1, 1])",
        "conv(mul([1, 3, 5], [3, 1]), [3, 1, 3], groups=3)",
    ],
    refused=[
        "conv(mul([1, 4, 5, 5], [4, 1, 1]), [4, 2, 1, 1], groups=2)",
        "conv(mul([1, 3, 5, 5], [5, 1]), [4, 3, 1, 1])",
        "conv(mul([5], [1, 3, 5, 5]), [4, 3, 1, 1])",
    ],
    assumes={"x": "finite", "w": "no_overflow", "c": "no_overflow"},
)
def input_scale_into_kernel(t: Builder, y: Handle, x: Handle, c: Handle, w: Handle) -> Handle | None:
    """conv(x · c, w) = conv(x, w · c) for a factor per input channel"""
    if x.rank != w.rank:  # x · c may have more axes than x
        return None
    channels = x.shape[1]
    if c.rank > x.rank or aligned(c.shape, x.rank) != (1, channels, *(1,) * (x.rank - 2)) or channels == 1:
        return None
    depthwise = y["groups"] == channels == w.shape[0]
    if y["groups"] != 1 and not depthwise:
        return None
    shape = (channels, *(1,) * (w.rank - 1)) if depthwise else (1, channels, *(1,) * (w.rank - 2))
    return t.like(y, x, t.mul(w, t.view(c, shape)))


@law(
    "y := conv(p := pad(x), w)",
    normalises=True,
    example="conv(pad([1, 3, 5, 5], pads=[[0, 0], [0, 0], [1, 1], [2, 2]]), [4, 3, 3, 3], padding=[1, 0])",
    refused=[
        "conv(pad([1, 3, 5, 5], pads=[[0, 0], [0, 0], [1, 0], [0, 0]]), [4, 3, 3, 3])",
        "conv(pad([1, 3, 5, 5], pads=[[0, 0], [1, 1], [0, 0], [0, 0]]), [4, 5, 3, 3])",
    ],
)
def padding_into_convolution(t: Builder, y: Handle, p: Handle, x: Handle, w: Handle) -> Handle | None:
    """conv(pad(x), w) = conv(x, w) with more padding, where all sides of the image are padded alike"""
    pads = p["pads"]
    if any(map(any, pads[:2])) or any(low != high for low, high in pads):
        return None
    return t.like(y, x, w, padding=tuple(q + low for q, (low, _) in zip(y["padding"], pads[2:], strict=True)))


@law(
    "y := conv(x, p := pad(w))",
    example="conv([1, 3, 5, 5], pad([4, 3, 1, 1], pads=[[0, 0], [0, 0], [1, 1], [1, 1]]), padding=[1, 1])",
    refused="conv([1, 3, 5, 5], pad([4, 3, 1, 1], pads=[[0, 0], [0, 0], [1, 1], [1, 1]]))",
    assumes={"x": "finite"},
)
def border_of_kernel_is_dropped(t: Builder, y: Handle, x: Handle, p: Handle, w: Handle) -> Handle | None:
    """conv(x, pad(w)) = conv(x, w) with less padding"""
    pads = p["pads"]
    if any(map(any, pads[:2])) or any(low != high for low, high in pads):
        return None
    borders = [low * d for (low, _), d in zip(pads[2:], y["dilation"], strict=True)]
    padding = tuple(q - border for q, border in zip(y["padding"], borders, strict=True))
    return t.like(y, x, w, padding=padding) if min(padding) >= 0 else None


def _with_fewer_groups(t: Builder, y: Handle, x: Handle, w: Handle, factor: int) -> Handle | None:
    """The same convolution in ``factor`` times fewer groups: the kernel is a diagonal of blocks."""
    groups, (out, inside, *window) = y["groups"] // factor, w.shape
    ones = (1,) * len(window)
    blocks = t.view(w, (groups, factor, out // y["groups"], 1, inside, *window))
    identity = t.view(t.dirac((factor, factor), 1, w.type.dtype), (1, factor, 1, factor, 1, *ones))
    return t.like(y, x, t.view(t.mul(blocks, identity), (out, inside * factor, *window)), groups=groups)


@law(
    "y := conv(x, w)",
    example="conv([1, 8, 5, 5], [4, 2, 3, 3], groups=4)",
    refused="conv([1, 8, 5, 5], [4, 8, 3, 3])",
    expansive=True,
    assumes={"x": "all_finite"},
)
def groups_are_halved(t: Builder, y: Handle, x: Handle, w: Handle) -> Handle | None:
    """A convolution in 2 g groups is one in g groups, with zeros in its kernel"""
    return _with_fewer_groups(t, y, x, w, 2) if y["groups"] > 2 and y["groups"] % 2 == 0 else None


@law(
    "y := conv(x, w)",
    example="conv([1, 6, 5], [4, 3, 3], groups=2)",
    refused="conv([1, 8, 5], [4, 8, 3])",
    expansive=True,
    assumes={"x": "all_finite"},
)
def groups_are_joined(t: Builder, y: Handle, x: Handle, w: Handle) -> Handle | None:
    """A grouped convolution is one without groups, with zeros in its kernel"""
    return _with_fewer_groups(t, y, x, w, y["groups"]) if y["groups"] > 1 else None


@law(
    "y := conv(x, w)",
    example="conv([2, 3, 1, 1], [4, 3, 1, 1])",
    refused=["conv([2, 3, 5, 5], [4, 3, 1, 1])", "conv([2, 4, 1, 1], [4, 2, 1, 1], groups=2)"],
)
def convolution_of_a_point(t: Builder, y: Handle, x: Handle, w: Handle) -> Handle | None:
    """conv(x, w) = X Wᵀ for images of one element"""
    if (
        x.numel != x.shape[0] * x.shape[1]
        or y["groups"] != 1
        or w.numel != w.shape[0] * w.shape[1]
        or any(y["padding"])
    ):
        return None
    rows, kernel = t.view(x, x.shape[:2]), t.view(w, w.shape[:2])
    return t.view(t.matmul(rows, t.permute(kernel, (1, 0))), y.shape)
