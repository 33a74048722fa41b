"""Every operator, applied to a term and to random operands and attributes."""

from __future__ import annotations

from collections.abc import Callable

from bench.laws.fuzz_pool import Pool
from torch_eqsat.ir.builder import Handle
from torch_eqsat.ir.types import TensorType


class Operators:
    """A method ``make_…`` applies an operator to a term of the pool, and raises where it takes no such term."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.rng, self.t = pool, pool.rng, pool.t
        self.by_name: dict[str, Callable[[Handle], Handle]] = {
            name.removeprefix("make_"): getattr(self, name) for name in dir(self) if name.startswith("make_")
        }

    # Elementwise

    def make_add(self, x: Handle) -> Handle:
        return self.t.add(x, self.pool.other(x))

    def make_mul(self, x: Handle) -> Handle:
        return self.t.mul(x, self.pool.other(x))

    def make_div(self, x: Handle) -> Handle:
        x = self.pool.floats(x)
        return self.t.apply("div", (x, self.pool.known_to_be(self.pool.other(x), lambda v: v.abs() > 0.1)))

    def make_extremum(self, x: Handle) -> Handle:
        x = self.pool.floats(x)
        return self.t.apply(self.rng.choice(("maximum", "minimum")), (x, self.pool.other(x)))

    def make_hypot(self, x: Handle) -> Handle:
        x = self.pool.floats(x)
        return self.t.apply("hypot", (x, self.pool.other(x)))

    def make_where(self, x: Handle) -> Handle:
        shape = x.shape if self.rng.random() < 0.5 else [n if self.rng.random() < 0.5 else 1 for n in x.shape]
        masks = [y for y in self.pool.terms if y.type == TensorType(x.shape, "bool")]
        square = len(shape) == 2 and shape[0] == shape[1] > 1
        facts = {self.rng.choice(("eye", "upper")): 1} if square and self.rng.random() < 0.5 else {}
        return self.t.apply(
            "where", (self.rng.choice([*masks, self.pool.leaf(shape, "bool", **facts)]), x, self.pool.other(x))
        )

    def make_equal(self, x: Handle) -> Handle:
        return self.t.apply("equal", (x, self.pool.other(x)))

    def make_one_hot(self, x: Handle) -> Handle:
        """Rows of x by a product, if it is a matrix."""
        x = self.pool.floats(x)
        index = self.pool.leaf((self.rng.choice((2, 3)), 1), "int64", bound=x.shape[0] + 1)
        if x.shape[0] < 2:
            raise ValueError("nothing to choose from")
        hot = self.t.apply("equal", (index, self.pool.leaf((x.shape[0],), "int64", repeats=1)))
        return self.t.matmul(self.t.apply("convert", (hot,), dtype=x.type.dtype), x)

    def make_convert(self, x: Handle) -> Handle:
        return self.t.apply("convert", (x,), dtype=self.rng.choice(("float32", "float64", "int64", "bool")))

    def make_clamp(self, x: Handle) -> Handle:
        low, high = self.rng.choice(((0.0, None), (-1.0, 2.0), (None, 1.0), (1.0, 1.0)))
        return self.t.apply("clamp", (self.pool.floats(x),), low=low, high=high)

    def make_function(self, x: Handle) -> Handle:
        return self.t.apply(self.rng.choice(("relu", "abs", "sigmoid", "tanh", "erf")), (self.pool.floats(x),))

    def make_exp(self, x: Handle) -> Handle:
        return self.t.apply("exp", (self.pool.known_to_be(self.pool.floats(x), lambda v: v.abs() < 8),))

    def make_positive(self, x: Handle) -> Handle:
        """A function of positive numbers, made so if they are not."""
        x = self.pool.floats(x)
        if self.rng.random() < 0.7:
            x = self.t.add(self.t.mul(x, x), self.t.scalar(1.0, x.type.dtype))
        op = self.rng.choice(("log", "sqrt", "rsqrt", "reciprocal"))
        return self.t.apply(op, (self.pool.known_to_be(x, lambda v: v > 0.1),))

    def make_pointwise(self, x: Handle) -> Handle:
        x = self.pool.floats(x)
        others = [self.pool.other(x) for _ in range(self.rng.randrange(3))]
        return self.t.apply("pointwise", (x, *others), uid=f"f{len(others)}", dtype=x.type.dtype)

    # Products

    def make_matmul(self, x: Handle) -> Handle:
        x = self.pool.floats(x)
        if x.rank not in (2, 3):
            raise ValueError("no matrix")
        k = self.rng.choice((1, 2, 4, x.shape[-1]))
        others = [
            y
            for y in self.pool.terms
            if y.rank == x.rank and y.shape[-2] == x.shape[-1] and y.type.dtype == x.type.dtype
        ]
        if others and self.rng.random() < 0.3:
            return self.t.matmul(x, self.rng.choice(others))
        if self.rng.random() < 0.5:
            return self.t.matmul(x, self.pool.leaf((*x.shape[:-2], x.shape[-1], k)))
        return self.t.matmul(self.pool.leaf((*x.shape[:-2], k, x.shape[-2])), x)

    def make_siblings(self, x: Handle) -> Handle:
        """Two images of x, added or joined."""
        parts = [self.make_conv(x) if x.rank > 2 and self.rng.random() < 0.6 else self.make_matmul(x) for _ in range(2)]
        if parts[0].type == parts[1].type and self.rng.random() < 0.5:
            return self.t.add(*parts)
        return self.t.cat(parts, self.pool.axis(parts[0]))

    def make_conv(self, x: Handle) -> Handle:
        x = self.pool.floats(x)
        n = x.rank - 2
        if n not in (1, 2, 3):
            raise ValueError("no image")
        kernel = [self.rng.choice((1, 1, 2, 3)) for _ in range(n)]
        groups = self.rng.choice([g for g in (1, 1, 2, x.shape[1]) if x.shape[1] % g == 0])
        out = self.rng.choice((groups, 2 * groups, x.shape[1]))
        return self.t.apply(
            "conv",
            (x, self.pool.leaf((out, x.shape[1] // groups, *kernel))),
            stride=[self.rng.choice((1, 1, 2)) for _ in range(n)],
            padding=[k // 2 if self.rng.random() < 0.5 else 0 for k in kernel],
            dilation=[self.rng.choice((1, 1, 2)) for _ in range(n)],
            groups=groups,
        )

    def make_identity(self, x: Handle) -> Handle:
        """A convolution of x plus x, or by the kernel of the identity."""
        x = self.pool.floats(x)
        shape = (x.shape[1], x.shape[1], *(3 for _ in x.shape[2:]))
        geometry = {"stride": (1,) * (x.rank - 2), "padding": (1,) * (x.rank - 2), "dilation": (1,) * (x.rank - 2)}
        kernel = self.pool.leaf(shape) if self.rng.random() < 0.5 else self.t.dirac(shape, 1, x.type.dtype)
        return self.t.add(self.t.apply("conv", (x, kernel), **geometry, groups=1), x)

    def make_sdpa(self, x: Handle) -> Handle:
        x = self.pool.floats(x)
        if x.rank != 4:
            raise ValueError("no heads")
        keys = (*x.shape[:2], self.rng.choice((1, 3, x.shape[2])), x.shape[3])
        k, v = self.pool.leaf(keys), self.pool.leaf(keys)
        mask = [self.pool.leaf((1, 1, x.shape[2], keys[2]))] if self.rng.random() < 0.3 else []
        causal = not mask and keys[2] == x.shape[2] and self.rng.random() < 0.3
        q, k, v = self.rng.choice(((x, k, v), (self.pool.leaf(x.shape), x, x)))
        return self.t.apply("sdpa", (q, k, v, *mask), scale=self.rng.choice((0.25, 0.5)), causal=causal)

    # Layout

    def make_permute(self, x: Handle) -> Handle:
        return self.t.permute(x, self.rng.sample(range(x.rank), x.rank))

    def make_view(self, x: Handle) -> Handle:
        n = x.numel
        targets = [(n,), (1, n), (2, n // 2), (n // 2, 2), (2, 2, n // 4), (1, 2, 2, n // 4), (*x.shape, 1)]
        return self.t.view(x, self.rng.choice(targets))

    def make_expand(self, x: Handle) -> Handle:
        return self.t.expand(x, [*([2] if self.rng.random() < 0.5 else []), *(4 if n == 1 else n for n in x.shape)])

    def make_slice(self, x: Handle) -> Handle:
        dim = self.pool.axis(x)
        start = self.rng.randrange(x.shape[dim])
        return self.t.slice(x, dim, start, self.rng.randint(start + 1, x.shape[dim]))

    def make_halves(self, x: Handle) -> Handle:
        """x, cut and joined again, perhaps elsewhere."""
        dim = self.pool.axis(x)
        half = self.rng.randrange(1, x.shape[dim])
        parts = [self.t.slice(x, dim, 0, half), self.t.slice(x, dim, half, x.shape[dim])]
        return self.t.cat(parts if self.rng.random() < 0.5 else parts[::-1], dim)

    def make_cat(self, x: Handle) -> Handle:
        parts = [x, *(self.pool.partner(x) for _ in range(self.rng.choice((1, 1, 2))))]
        return self.t.cat(parts, self.pool.axis(x))

    def make_pad(self, x: Handle) -> Handle:
        return self.t.pad(x, [(self.rng.choice((0, 0, 1)), self.rng.choice((0, 0, 1))) for _ in x.shape])

    def make_filter_bank(self, x: Handle) -> Handle:
        x, taps = self.pool.floats(x), self.rng.randint(1, 3)
        rows = [[self.rng.choice((-1.0, 0.5, 1.0, 2.0)) for _ in range(taps)] for _ in range(self.rng.randint(1, 3))]
        rows = [[c if i == 0 or self.rng.random() < 0.7 else 0.0 for i, c in enumerate(row)] for row in rows]
        steps = {"step": self.rng.choice((1, 2)), "dilation": self.rng.choice((1, 1, 2))}
        return self.t.filter_bank(x, rows, dim=self.pool.axis(x), into=self.pool.axis(x), **steps)

    def make_flip(self, x: Handle) -> Handle:
        return self.t.apply("flip", (x,), dim=self.pool.axis(x))

    def make_diagonal(self, x: Handle) -> Handle:
        return self.t.apply("diagonal", (x,))

    # Reductions

    def make_reduce(self, x: Handle) -> Handle:
        x = self.pool.floats(x)
        dims = self.rng.sample(range(x.rank), self.rng.randint(1, x.rank))
        kind = self.rng.choice(("sum", "mean", "amax", "amin", "var0.0", "var1.0"))
        return self.t.reduce(x, kind, dims)

    def make_pool(self, x: Handle) -> Handle:
        x = self.pool.floats(x)
        kernel = [self.rng.choice((1, 2, n)) for n in x.shape[2:]]
        padding = [self.rng.randint(0, k // 2) for k in kernel]
        window = {"kernel": kernel, "stride": [self.rng.choice((1, 2)) for _ in kernel], "padding": padding}
        if self.rng.random() < 0.5:
            return self.t.apply("max_pool", (x,), **window)
        count, divisor = self.rng.random() < 0.5, self.rng.choice((None, None, 2))
        return self.t.apply("avg_pool", (x,), **window, ceil_mode=False, count_include_pad=count, divisor=divisor)

    def make_cumsum(self, x: Handle) -> Handle:
        return self.t.apply("cumsum", (self.pool.floats(x),), dim=self.pool.axis(x))

    def make_topk(self, x: Handle) -> Handle:
        dim = self.pool.axis(x)
        chosen = {"largest": self.rng.random() < 0.5, "item": self.rng.choice((0, 0, 1))}
        return self.t.apply("topk", (x,), k=self.rng.randint(1, x.shape[dim]), dim=dim, sorted=True, **chosen)

    # Look-ups

    def make_index(self, x: Handle) -> Handle:
        first = self.rng.choice((x.rank - 1, max(0, x.rank - 2)))
        stop = self.rng.choice((first + 1, x.rank))
        indices = []
        for position, size in enumerate(x.shape[first:stop]):
            after = (1,) * (stop - first - position - 1)
            times = self.rng.choice((0, 1, 2))
            length = size * times if times else self.rng.choice((1, 2, 3))
            facts = {"repeats": times} if times else {}
            indices.append(self.pool.leaf((length, *after), "int64", bound=size, **facts))
        return self.t.apply("index", (x, *indices), first=first)

    def make_embedding(self, x: Handle) -> Handle:
        shape = self.rng.choice(((2, 2), (3,), (1,)))
        return self.t.apply("embedding", (x, self.pool.leaf(shape, "int64", bound=x.shape[0])))

    def make_bag(self, x: Handle) -> Handle:
        bags = self.rng.choice((1, 2, 3))
        index = self.pool.leaf((bags * self.rng.choice((1, 1, 2)),), "int64", bound=x.shape[0])
        return self.t.apply("embedding_bag", (self.pool.floats(x), index, self.pool.leaf((bags,), "int64", repeats=1)))

    def make_scatter_add(self, x: Handle) -> Handle:
        dim = self.pool.axis(x)
        shape = [self.rng.randint(1, 4) if axis == dim else self.rng.randint(1, n) for axis, n in enumerate(x.shape)]
        index = self.pool.leaf(shape, "int64", bound=x.shape[dim])
        return self.t.apply("scatter_add", (x, index, self.pool.leaf(shape, x.type.dtype)), dim=dim)
