"""Laws over traits of operators, each stated once and expanded to every operator with these traits.

torch_eqsat/ir/traits.py states on which axes of an operand an operator acts, and in which operands it is linear. A
matmul as a map of its left operand acts on the columns, as a map of its right operand on the rows. A 1x1 convolution
acts on the channels, pooling and upsampling on the positions, a slice on its axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch_eqsat.ir.builder import Builder, Handle
from torch_eqsat.ir.operator import Sample
from torch_eqsat.ir.traits import acted_axes, is_linear, is_selection, linear_positions, mapped_positions
from torch_eqsat.laws.law import law
from torch_eqsat.laws.pattern import Place, pointwise
from torch_eqsat.rewrites.samples import BASES, sampled_places, samples_of
from torch_eqsat.rewrites.shapes import narrow, varies_only_along

MAPS = [p for p in sampled_places() if (p.op, p.position) in mapped_positions()]
LINEAR = [p for p in sampled_places() if (p.op, p.position) in linear_positions()]
WORKING = [p for p in LINEAR if not is_selection(p.op) and p.op != "pad"]
"""Linear maps that compute something: merging two of them saves one."""
MOVING = [p for p in LINEAR if p not in WORKING]
SELECTING = [p for p in sampled_places() if is_selection(p.op) and any(s.ratio < 1 for s in samples_of(p))]
COPYING = [p for p in sampled_places() if is_selection(p.op) and any(s.ratio > 1 for s in samples_of(p))]
REARRANGING = [Place("view", 1), Place("permute", 1)]


def _axes(node: Handle, position: int) -> frozenset[int] | None:
    return acted_axes(node.op, dict(node.attrs), [x.type for x in node.operands], position)


# Maps on disjoint axes


def _goes_first(a: str, b: str, ratio_a: float, ratio_b: float) -> bool:
    """Whether A should go before B; the ratios are those by which A and B change the number of elements.

    A selection of fewer elements goes first, because it costs nothing and makes all later work smaller; of two that
    which leaves fewer, because a map may let it pass and not the other. A map that only makes copies goes last.
    Otherwise, the map with the smaller result goes first.
    """
    if is_selection(b) and ratio_b < 1:
        return is_selection(a) and ratio_a < ratio_b
    if is_selection(a) and ratio_a < 1:
        return True
    if ratio_a > 1 and (is_selection(a) or a == "pad"):
        return False
    return ratio_a < ratio_b


def _commute(a: str, b: str, linear: bool) -> bool:
    """Whether A and B on different axes commute: linear maps do, and a selection commutes with every map."""
    return linear or is_selection(a) or is_selection(b)


def _sample_pairs(a: Place, b: Place) -> Iterator[tuple[Sample, Sample]]:
    """Samples of A and B that commute and of which A should go first."""
    linear = (a.op, a.position) in linear_positions() and (b.op, b.position) in linear_positions()
    for outer in samples_of(a):
        for inner in samples_of(b):
            if outer.rank != inner.rank or outer.axes is None or inner.axes is None or outer.axes & inner.axes:
                continue
            if _commute(a.op, b.op, linear) and _goes_first(a.op, b.op, outer.ratio, inner.ratio):
                yield outer, inner


def _composed(A: Place, B: Place) -> list[str]:
    texts = []
    for outer, inner in _sample_pairs(A, B):
        *before, y = inner.over(BASES[inner.rank], "b")
        texts.append(f"({', '.join([*before, *outer.over(y, 'a')])})")
    return texts[:2]


def _commuted(A: Place, B: Place) -> dict[str, str]:
    """Two linear maps that both compute something take their sums in another order."""
    return {} if is_selection(A.op) or is_selection(B.op) else {"x": "finite no_overflow"}


@law(
    "a := A(b := B(x))",
    places=[
        {"A": a, "B": b}
        for a in MAPS
        for b in MAPS
        # The product of three matrices associates in any case: see matmul.py.
        if not a.op == b.op == "matmul" and next(_sample_pairs(a, b), None) is not None
    ],
    example=_composed,
    assumes=_commuted,
)
def maps_on_disjoint_axes_commute(t: Builder, a: Handle, b: Handle, x: Handle, A: Place, B: Place) -> Handle | None:
    """A(B(x)) = B(A(x)) when A and B act on different axes of x, and both are linear or one only selects"""
    outer, inner = _axes(a, A.position), _axes(b, B.position)
    linear = is_linear(a.op, dict(a.attrs), A.position) and is_linear(b.op, dict(b.attrs), B.position)
    if outer is None or inner is None or outer & inner or not _commute(a.op, b.op, linear):
        return None
    if linear and not (is_selection(a.op) or is_selection(b.op)) and narrow(x):
        return None
    if not _goes_first(a.op, b.op, a.numel / b.numel, b.numel / x.numel):
        return None
    return t.on(b, B.position, t.on(a, A.position, x))


# Linear maps


def _image(inside: str, outside: str = "{x}", ratios: tuple[float, float] = (0.0, 99.0)) -> Callable[..., list[str]]:
    """A function that makes examples: ``outside`` around the last given place, which is applied to the term ``inside``;
    ``{x}`` is an input. Only samples of the place are used whose ratio of sizes lies between ``ratios``."""

    def examples(**places: Place) -> list[str]:
        *functions, place = places.values()
        texts = []
        for sample in samples_of(place):
            if ratios[0] <= sample.ratio < ratios[1]:
                *before, image = sample.over(inside.replace("{x}", BASES[sample.rank]), "v")
                text = f"({', '.join([*before, outside.replace('{x}', image)])})"
                texts.append(text.replace("F(", f"{functions[0].op}(") if functions else text)
        return texts[:2]

    return examples


def _scaled(L: Place) -> list[str]:
    """Examples with a number, and with a factor that varies along the axes on which the map does not act."""
    texts = _image("mul({x}, 0.5)")(L=L)
    sample = samples_of(L)[0]
    if sample.axes is not None:
        sizes = BASES[sample.rank][1:-1].split(",")
        shape = [1 if axis in sample.axes else int(size) for axis, size in enumerate(sizes)]
        texts.append(f"({', '.join(sample.over(f'mul({BASES[sample.rank]}, {shape})', 'v'))})")
    return texts


def _two_images(sample: Sample) -> tuple[list[str], tuple[str, str]]:
    """Preceding terms, and the images of two inputs under the same map."""
    *before, image = sample.over(BASES[sample.rank], "v")
    *_, other = sample.over(BASES[sample.rank], "u")
    for name in (text.partition(" := ")[0] for text in before[1:]):
        other = other.replace(name.replace("v", "u", 1), name)
    return [*before, f"u := {BASES[sample.rank]}"], (image, other)


def _sum_of_images(L: Place) -> list[str]:
    before, (image, other) = _two_images(samples_of(L)[0])
    texts = [f"({', '.join([*before, f'add({image}, {other})'])})"]
    if L.op == "avg_pool":  # products are large enough that a sum of two overflows, where its means do not
        means = [f"avg_pool(mul({v}, s), kernel=[2, 2], stride=[2, 2])" for v in "vu"]
        texts.append(f"(s := [1, 1, 6, 6], v := [2, 4, 6, 6], u := [2, 4, 6, 6], add({', '.join(means)}))")
    return texts


def _scaled_image(L: Place) -> dict[str, str]:
    """Assumptions by map: padding makes zeros, which an infinite factor would turn into NaN."""
    if L.op == "pad":
        return {"s": "all_finite"}
    return {} if is_selection(L.op) else {"x": "finite no_overflow"}


@law("m := L(f := mul(x, s))", L=[p for p in LINEAR if p.op != "slice"], example=_scaled, assumes=_scaled_image)
def factor_moves_out_of_linear_map(t: Builder, m: Handle, f: Handle, x: Handle, s: Handle, L: Place) -> Handle | None:
    """L(s · x) = s · L(x) for a number, or a factor that does not vary along the axes that L acts on"""
    if not is_linear(m.op, dict(m.attrs), L.position) or f.shape != x.shape or s.numel >= x.numel or s.rank > x.rank:
        return None
    if narrow(x) and not is_selection(m.op):
        return None
    axes = _axes(m, L.position)
    if axes is None:
        return t.mul(t.on(m, L.position, x), t.view(s, ())) if s.numel == 1 else None
    return t.mul(t.on(m, L.position, x), s) if varies_only_along(s, set(range(x.rank)) - axes, x.rank) else None


def _merged(t: Builder, p: Handle, q: Handle, x: Handle, y: Handle, position: int) -> Handle | None:
    if p.attrs != q.attrs or x.shape != y.shape or x.id == y.id or not is_linear(p.op, dict(p.attrs), position):
        return None
    if narrow(x) and not is_selection(p.op):  # x + y may overflow where their images cancel
        return None
    return t.on(p, position, t.add(x, y))


@law("add(p := L(x), q := L(y))", L=WORKING, example=_sum_of_images, assumes={"x": "finite no_overflow"})
def images_add(t: Builder, p: Handle, q: Handle, x: Handle, y: Handle, L: Place) -> Handle | None:
    """L(x) + L(y) = L(x + y) for a linear map that computes something"""
    return _merged(t, p, q, x, y, L.position)


@law("add(p := L(x), q := L(y))", L=MOVING, exactness="bitwise", example=_sum_of_images, expansive=True)
def moved_terms_add(t: Builder, p: Handle, q: Handle, x: Handle, y: Handle, L: Place) -> Handle | None:
    """L(x) + L(y) = L(x + y) for a linear map that only moves elements"""
    return _merged(t, p, q, x, y, L.position)


@law(
    "m := L(s := add(x, y))",
    L=[p for p in WORKING if p != Place("conv", 2, 0)],
    example=_image("add({x}, {x})"),
    expansive=True,
    assumes={"x|y": "no_cancellation", "x": "finite no_overflow"},
)
def linear_map_distributes(t: Builder, m: Handle, s: Handle, x: Handle, y: Handle, L: Place) -> Handle | None:
    """L(x + y) = L(x) + L(y)"""
    if not is_linear(m.op, dict(m.attrs), L.position) or not x.shape == y.shape == s.shape or narrow(x):
        return None
    return t.add(t.on(m, L.position, x), t.on(m, L.position, y))


# Maps and concatenations


def _free_axis(sample: Sample) -> int:
    """An axis on which the map does not act."""
    return min(frozenset(range(sample.rank)) - (sample.axes or frozenset()))


def _two_parts(A: Place) -> list[str]:
    """Images of two inputs under the same map, concatenated."""
    texts = []
    for sample in samples_of(A)[:1]:
        before, (image, other) = _two_images(sample)
        texts.append(f"({', '.join([*before, f'cat({image}, {other}, dim={_free_axis(sample)})'])})")
    return texts


def _image_of_parts(A: Place) -> list[str]:
    texts = []
    for sample in samples_of(A)[:1]:
        x = BASES[sample.rank]
        texts.append(f"({', '.join(sample.over(f'cat({x}, {x}, dim={_free_axis(sample)})', 'v'))})")
    return texts


@law("c := cat(y := A(a), z := A(b))", A=MAPS, example=_two_parts)
def images_of_parts_join(t: Builder, c: Handle, y: Handle, z: Handle, a: Handle, b: Handle, A: Place) -> Handle | None:
    """cat(A(a), A(b)) = A(cat(a, b)) along an axis that A does not act on"""
    axes = _axes(y, A.position)
    if axes is None or axes != _axes(z, A.position) or y.attrs != z.attrs or c["dim"] in axes or a.rank != c.rank:
        return None
    return t.on(y, A.position, t.cat([a, b], c["dim"]))


@law("y := A(c := cat(a, b))", A=MAPS, example=_image_of_parts, expansive=True)
def image_of_parts(t: Builder, y: Handle, c: Handle, a: Handle, b: Handle, A: Place) -> Handle | None:
    """A(cat(a, b)) = cat(A(a), A(b)) along an axis that A does not act on"""
    axes = _axes(y, A.position)
    if axes is None or c["dim"] in axes:
        return None
    return t.cat([t.on(y, A.position, a), t.on(y, A.position, b)], c["dim"])


# Selections and elementwise functions


@law("s := S(y := F(x))", F=pointwise(1), S=SELECTING, exactness="bitwise", example=_image("F({x})", ratios=(0.0, 1.0)))
def selection_goes_before_function(t: Builder, s: Handle, y: Handle, x: Handle) -> Handle | None:
    """S(f(x)) = f(S(x)) for a selection that keeps fewer elements than it reads"""
    return t.on(y, 0, t.on(s, 0, x)) if s.numel < y.numel else None


@law(
    "y := F(s := S(x))",
    F=pointwise(1),
    S=COPYING,
    exactness="bitwise",
    example=_image("{x}", "F({x})", ratios=(1.01, 99.0)),
)
def copies_come_after_function(t: Builder, y: Handle, s: Handle, x: Handle) -> Handle | None:
    """f(S(x)) = S(f(x)) for a selection that makes copies"""
    return t.on(s, 0, t.on(y, 0, x)) if s.numel > x.numel else None


@law("s := S(y := F(x))", F=pointwise(1), S=REARRANGING, exactness="bitwise", example=_image("F({x})"), expansive=True)
def rearrangement_through_function(t: Builder, s: Handle, y: Handle, x: Handle) -> Handle:
    """S(f(x)) = f(S(x)) for a view or a permutation"""
    return t.on(y, 0, t.on(s, 0, x))
