"""Transposed convolutions are linear in the kernel, and 1x1 convolutions if their windows do not overlap.

principles.py has the laws that they share with other linear maps on channels and positions.
"""

import math

from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.laws.law import law
from torch_eqsat.rewrites.shapes import varies_only_along


@law(
    "p := mul(y := conv_transpose(x, w), c)",
    example=[
        "mul(conv_transpose([1, 2, 5, 5], [2, 3, 3, 3], stride=[2, 2]), [3, 1, 1])",
        "mul(conv_transpose([1, 4, 5], [4, 2, 3], groups=2), [1, 4, 1])",
    ],
    refused="mul(conv_transpose([1, 2, 3, 3], [2, 3, 1, 1]), [3, 1])",
    assumes={"x": "finite", "w": "no_overflow", "c": "no_overflow"},
)
def channel_scale_into_transposed_kernel(
    t: Builder, p: Handle, y: Handle, x: Handle, w: Handle, c: Handle
) -> Handle | None:
    """convᵀ(x, w) · c = convᵀ(x, w · c) for a factor per output channel"""
    if not varies_only_along(c, {1}, y.rank) or p.shape != y.shape or c.numel not in (1, y.shape[1]):
        return None
    groups, (inside, outside, *window) = y["groups"], w.shape
    if c.numel == 1:
        return t.like(y, x, t.mul(w, t.view(c, ())))
    ones = (1,) * len(window)
    per_group = t.mul(t.view(w, (groups, inside // groups, outside, *window)), t.view(c, (groups, 1, outside, *ones)))
    return t.like(y, x, t.view(per_group, w.shape))


@law(
    "y := conv_transpose(x, w)",
    example=[
        "conv_transpose([2, 3, 4, 5], [3, 4, 2, 3], stride=[2, 3])",
        "conv_transpose([2, 3, 4], [3, 4, 2], stride=[2])",
    ],
    refused=[
        "conv_transpose([2, 3, 4, 5], [3, 4, 3, 3], stride=[2, 2])",
        "conv_transpose([2, 3, 4, 5], [3, 4, 2, 2], stride=[2, 2], padding=[1, 1])",
        "conv_transpose([2, 4, 4, 5], [4, 4, 2, 2], stride=[2, 2], groups=2)",
    ],
)
def transposed_convolution_without_overlap(t: Builder, y: Handle, x: Handle, w: Handle) -> Handle | None:
    """convᵀ(x, w) = a 1x1 convolution whose channels are the places of windows that do not overlap, interleaved"""
    n, outside, window = x.rank - 2, w.shape[1], w.shape[2:]
    if tuple(y["stride"]) != window or any(y["padding"]) or y["groups"] != 1 or max(window) == 1:
        return None
    places = outside * math.prod(window)
    kernel = t.view(t.permute(t.view(w, (w.shape[0], places)), (1, 0)), (places, w.shape[0], *(1,) * n))
    steps = {"stride": (1,) * n, "padding": (0,) * n, "dilation": (1,) * n, "groups": 1}
    image = t.view(t.apply("conv", (x, kernel), **steps), (x.shape[0], outside, *window, *x.shape[2:]))
    interleaved = [axis for i in range(n) for axis in (2 + n + i, 2 + i)]
    return t.view(t.permute(image, (0, 1, *interleaved)), y.shape)
