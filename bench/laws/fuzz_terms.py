"""Grows random terms of every operator, with values in sight: what is drawn stays finite and of moderate size."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torch_eqsat.errors import EqsatError
from torch_eqsat.ir.builder import Builder, GraphStore, Handle
from torch_eqsat.ir.term import FACTS, Node, TermGraph
from torch_eqsat.ir.types import TensorType
from torch_eqsat.laws.example import build_example
from torch_eqsat.laws.law import Law
from torch_eqsat.verification.interpreter import Drawing, apply, draw_input, draw_inputs, evaluate
from torch_eqsat.verification.variants import perturbed

SHAPES = ((2, 4), (4, 4), (1, 4), (4,), (), (2, 4, 2), (3, 4, 4), (1, 2, 4, 4), (2, 4, 2, 2), (1, 4, 3, 3), (1, 2, 5))
LARGEST, ELEMENTS = 1e6, 512
NUMBERS = (1.0, 0.0, 0.5, -1.0, 2.0)


class Store(GraphStore):
    """Half of the inputs are constants, and so is what depends on constants alone."""

    def __init__(self, graph: TermGraph, rng: random.Random) -> None:
        super().__init__(graph)
        self.rng = rng

    def insert(self, node: Node, type_: TensorType, /) -> int:
        if node.op == "input":
            constant = self.rng.random() < 0.5 or any(name in FACTS for name, _ in node.attrs)
        else:
            constant = all(self.graph.constant[c] for c in node.children)
        return self.graph.add(node, type_, constant)


class Grower:
    """A term graph that grows operator by operator. ``pool`` are the terms so far, ``values`` those of all nodes."""

    def __init__(self, rng: random.Random, laws: Sequence[Law]) -> None:
        self.rng = rng
        self.graph = TermGraph()
        self.t = Builder(Store(self.graph, rng))
        self.values: dict[int, Tensor] = {}
        self.dtype = "float64" if rng.random() < 0.1 else "float32"
        self.pool: list[Handle] = []
        if laws and rng.random() < 0.6:
            self._plant(rng.choice(rng.choice(laws).examples))
        if not self.pool:
            self.pool.append(self.leaf(rng.choice(SHAPES)))
        self.operators: dict[str, Callable[[Handle], Handle]] = {
            name.removeprefix("_make_"): getattr(self, name) for name in dir(self) if name.startswith("_make_")
        }

    def _plant(self, example: str) -> None:
        """Begin with an example of a law, or a variant of one: what laws are about is rare in random terms."""
        with contextlib.suppress(EqsatError, IndexError, KeyError, ValueError, TypeError, RuntimeError):
            text = perturbed(example, self.rng) if self.rng.random() < 0.5 else example
            root = build_example(text, self.t)
            self.graph.roots = [root.id]
            inputs = draw_inputs(self.graph, Drawing(seed=self.rng.randrange(1 << 20)))
            values = evaluate(self.graph, inputs)
            if all(_is_tame(value) for value in values.values()):
                self.values = values
                self.pool.append(root)

    def leaf(self, shape: Sequence[int], dtype: str = "", bound: int = 2, **facts: float) -> Handle:
        """A new input; indices are below ``bound``."""
        attrs = {"shape": tuple(shape), "dtype": dtype or self.dtype, **facts}
        handle = self.t.apply("input", [], name=f"y{len(self.graph)}", **attrs)
        generator = torch.Generator().manual_seed(self.rng.randrange(1 << 40))
        self.values[handle.id] = draw_input(self.graph.nodes[handle.id], handle.type, Drawing(), generator, bound)
        return handle

    def grow(self) -> None:
        """Apply one operator, if what comes of it is finite and small."""
        x = self.pool[-1 - self.rng.randrange(min(4, len(self.pool)))]
        name = self.rng.choice(list(self.operators))
        with contextlib.suppress(EqsatError, IndexError, KeyError, ValueError, RuntimeError, NotImplementedError):
            made = self.operators[name](x)
            if made.numel <= ELEMENTS and self._evaluate(made):
                self.pool.append(made)

    def _evaluate(self, made: Handle) -> bool:
        for number in self.graph.reachable([made.id]):
            if number not in self.values:
                node = self.graph.nodes[number]
                types = [t for child in node.children if (t := self.graph.types[child]) is not None]
                value = apply(node, [self.values[child] for child in node.children], types, "float64")
                if not _is_tame(value):
                    return False
                self.values[number] = value
        return True

    def result(self) -> tuple[TermGraph, dict[str, Tensor]]:
        """What the last terms need of the graph, and the values of inputs by name."""
        roots = list(dict.fromkeys(x.id for x in self.pool[-self.rng.choice((1, 1, 2)) :]))
        graph = below(self.graph, roots)
        values = {
            node["name"]: self.values[i]
            for i, node in enumerate(self.graph.nodes)
            if node.op == "input" and i in self.values
        }
        return graph, {node["name"]: values[node["name"]] for node in graph.nodes if node.op == "input"}

    # Operands

    def _floats(self, x: Handle) -> Handle:
        if not x.type.is_floating:
            return self.t.apply("convert", (x,), dtype=self.dtype)
        return x

    def _partner(self, x: Handle) -> Handle:
        same = [y for y in self.pool if y.type == x.type]
        return self.rng.choice(same) if same and self.rng.random() < 0.5 else self.leaf(x.shape, x.type.dtype)

    def _small(self, x: Handle) -> Handle:
        """What broadcasts to ``x``: of fewer elements, of fewer axes, or a number."""
        if x.type.is_floating and self.rng.random() < 0.3:
            return self.t.scalar(self.rng.choice(NUMBERS), x.type.dtype)
        shape = [n if self.rng.random() < 0.5 else 1 for n in x.shape]
        shape = shape[self.rng.randrange(max(1, x.rank)) :]
        if self.rng.random() < 0.15:
            return self.leaf(shape, x.type.dtype, value=self.rng.choice(NUMBERS))
        return self.leaf(shape, x.type.dtype)

    def _other(self, x: Handle) -> Handle:
        return self._partner(x) if self.rng.random() < 0.5 else self._small(x)

    def _axis(self, x: Handle) -> int:
        return self.rng.randrange(x.rank)

    def _known_to_be(self, x: Handle, holds: Callable[[Tensor], Tensor]) -> Handle:
        if not self._evaluate(x) or not bool(holds(self.values[x.id]).all()):
            raise ValueError("outside of the function's domain")
        return x

    # Elementwise

    def _make_add(self, x: Handle) -> Handle:
        return self.t.add(x, self._other(x))

    def _make_mul(self, x: Handle) -> Handle:
        return self.t.mul(x, self._other(x))

    def _make_div(self, x: Handle) -> Handle:
        x = self._floats(x)
        return self.t.apply("div", (x, self._known_to_be(self._other(x), lambda v: v.abs() > 0.1)))

    def _make_extremum(self, x: Handle) -> Handle:
        x = self._floats(x)
        return self.t.apply(self.rng.choice(("maximum", "minimum")), (x, self._other(x)))

    def _make_where(self, x: Handle) -> Handle:
        shape = x.shape if self.rng.random() < 0.5 else [n if self.rng.random() < 0.5 else 1 for n in x.shape]
        masks = [y for y in self.pool if y.type == TensorType(x.shape, "bool")]
        square = len(shape) == 2 and shape[0] == shape[1] > 1
        facts = {self.rng.choice(("eye", "upper")): 1} if square and self.rng.random() < 0.5 else {}
        return self.t.apply("where", (self.rng.choice([*masks, self.leaf(shape, "bool", **facts)]), x, self._other(x)))

    def _make_equal(self, x: Handle) -> Handle:
        return self.t.apply("equal", (x, self._other(x)))

    def _make_one_hot(self, x: Handle) -> Handle:
        """Rows of x by a product, if it is a matrix."""
        x = self._floats(x)
        index = self.leaf((self.rng.choice((2, 3)), 1), "int64", bound=x.shape[0] + 1)
        if x.shape[0] < 2:
            raise ValueError("nothing to choose from")
        hot = self.t.apply("equal", (index, self.leaf((x.shape[0],), "int64", repeats=1)))
        return self.t.matmul(self.t.apply("convert", (hot,), dtype=x.type.dtype), x)

    def _make_convert(self, x: Handle) -> Handle:
        return self.t.apply("convert", (x,), dtype=self.rng.choice(("float32", "float64", "int64", "bool")))

    def _make_clamp(self, x: Handle) -> Handle:
        low, high = self.rng.choice(((0.0, None), (-1.0, 2.0), (None, 1.0), (1.0, 1.0)))
        return self.t.apply("clamp", (self._floats(x),), low=low, high=high)

    def _make_function(self, x: Handle) -> Handle:
        return self.t.apply(self.rng.choice(("relu", "abs", "sigmoid", "tanh", "erf")), (self._floats(x),))

    def _make_exp(self, x: Handle) -> Handle:
        return self.t.apply("exp", (self._known_to_be(self._floats(x), lambda v: v.abs() < 8),))

    def _make_positive(self, x: Handle) -> Handle:
        """A function of positive numbers, made so if they are not."""
        x = self._floats(x)
        if self.rng.random() < 0.7:
            x = self.t.add(self.t.mul(x, x), self.t.scalar(1.0, x.type.dtype))
        op = self.rng.choice(("log", "sqrt", "rsqrt", "reciprocal"))
        return self.t.apply(op, (self._known_to_be(x, lambda v: v > 0.1),))

    def _make_pointwise(self, x: Handle) -> Handle:
        x = self._floats(x)
        others = [self._other(x) for _ in range(self.rng.randrange(3))]
        return self.t.apply("pointwise", (x, *others), uid=f"f{len(others)}", dtype=x.type.dtype)

    # Products

    def _make_matmul(self, x: Handle) -> Handle:
        x = self._floats(x)
        if x.rank not in (2, 3):
            raise ValueError("no matrix")
        k = self.rng.choice((1, 2, 4, x.shape[-1]))
        others = [
            y for y in self.pool if y.rank == x.rank and y.shape[-2] == x.shape[-1] and y.type.dtype == x.type.dtype
        ]
        if others and self.rng.random() < 0.3:
            return self.t.matmul(x, self.rng.choice(others))
        if self.rng.random() < 0.5:
            return self.t.matmul(x, self.leaf((*x.shape[:-2], x.shape[-1], k)))
        return self.t.matmul(self.leaf((*x.shape[:-2], k, x.shape[-2])), x)

    def _make_siblings(self, x: Handle) -> Handle:
        """Two images of x, added or joined."""
        parts = [
            self._make_conv(x) if x.rank > 2 and self.rng.random() < 0.6 else self._make_matmul(x) for _ in range(2)
        ]
        if parts[0].type == parts[1].type and self.rng.random() < 0.5:
            return self.t.add(*parts)
        return self.t.cat(parts, self._axis(parts[0]))

    def _make_conv(self, x: Handle) -> Handle:
        x = self._floats(x)
        n = x.rank - 2
        if n not in (1, 2, 3):
            raise ValueError("no image")
        kernel = [self.rng.choice((1, 1, 2, 3)) for _ in range(n)]
        groups = self.rng.choice([g for g in (1, 1, 2, x.shape[1]) if x.shape[1] % g == 0])
        out = self.rng.choice((groups, 2 * groups, x.shape[1]))
        return self.t.apply(
            "conv",
            (x, self.leaf((out, x.shape[1] // groups, *kernel))),
            stride=[self.rng.choice((1, 1, 2)) for _ in range(n)],
            padding=[k // 2 if self.rng.random() < 0.5 else 0 for k in kernel],
            dilation=[self.rng.choice((1, 1, 2)) for _ in range(n)],
            groups=groups,
        )

    def _make_identity(self, x: Handle) -> Handle:
        """A convolution of x plus x, or by the kernel of the identity."""
        x = self._floats(x)
        shape = (x.shape[1], x.shape[1], *(3 for _ in x.shape[2:]))
        geometry = {"stride": (1,) * (x.rank - 2), "padding": (1,) * (x.rank - 2), "dilation": (1,) * (x.rank - 2)}
        kernel = self.leaf(shape) if self.rng.random() < 0.5 else self.t.dirac(shape, 1, x.type.dtype)
        return self.t.add(self.t.apply("conv", (x, kernel), **geometry, groups=1), x)

    def _make_sdpa(self, x: Handle) -> Handle:
        x = self._floats(x)
        if x.rank != 4:
            raise ValueError("no heads")
        keys = (*x.shape[:2], self.rng.choice((1, 3, x.shape[2])), x.shape[3])
        k, v = self.leaf(keys), self.leaf(keys)
        mask = [self.leaf((1, 1, x.shape[2], keys[2]))] if self.rng.random() < 0.3 else []
        causal = not mask and keys[2] == x.shape[2] and self.rng.random() < 0.3
        q, k, v = self.rng.choice(((x, k, v), (self.leaf(x.shape), x, x)))
        return self.t.apply("sdpa", (q, k, v, *mask), scale=self.rng.choice((0.25, 0.5)), causal=causal)

    # Layout

    def _make_permute(self, x: Handle) -> Handle:
        return self.t.permute(x, self.rng.sample(range(x.rank), x.rank))

    def _make_view(self, x: Handle) -> Handle:
        n = x.numel
        targets = [(n,), (1, n), (2, n // 2), (n // 2, 2), (2, 2, n // 4), (1, 2, 2, n // 4), (*x.shape, 1)]
        return self.t.view(x, self.rng.choice(targets))

    def _make_expand(self, x: Handle) -> Handle:
        return self.t.expand(x, [*([2] if self.rng.random() < 0.5 else []), *(4 if n == 1 else n for n in x.shape)])

    def _make_slice(self, x: Handle) -> Handle:
        dim = self._axis(x)
        start = self.rng.randrange(x.shape[dim])
        return self.t.slice(x, dim, start, self.rng.randint(start + 1, x.shape[dim]))

    def _make_halves(self, x: Handle) -> Handle:
        """x, cut and joined again, perhaps elsewhere."""
        dim = self._axis(x)
        half = self.rng.randrange(1, x.shape[dim])
        parts = [self.t.slice(x, dim, 0, half), self.t.slice(x, dim, half, x.shape[dim])]
        return self.t.cat(parts if self.rng.random() < 0.5 else parts[::-1], dim)

    def _make_cat(self, x: Handle) -> Handle:
        parts = [x, *(self._partner(x) for _ in range(self.rng.choice((1, 1, 2))))]
        return self.t.cat(parts, self._axis(x))

    def _make_pad(self, x: Handle) -> Handle:
        return self.t.pad(x, [(self.rng.choice((0, 0, 1)), self.rng.choice((0, 0, 1))) for _ in x.shape])

    def _make_filter_bank(self, x: Handle) -> Handle:
        x, taps = self._floats(x), self.rng.randint(1, 3)
        rows = [[self.rng.choice((-1.0, 0.5, 1.0, 2.0)) for _ in range(taps)] for _ in range(self.rng.randint(1, 3))]
        rows = [[c if i == 0 or self.rng.random() < 0.7 else 0.0 for i, c in enumerate(row)] for row in rows]
        steps = {"step": self.rng.choice((1, 2)), "dilation": self.rng.choice((1, 1, 2))}
        return self.t.filter_bank(x, rows, dim=self._axis(x), into=self._axis(x), **steps)

    def _make_flip(self, x: Handle) -> Handle:
        return self.t.apply("flip", (x,), dim=self._axis(x))

    def _make_diagonal(self, x: Handle) -> Handle:
        return self.t.apply("diagonal", (x,))

    # Reductions

    def _make_reduce(self, x: Handle) -> Handle:
        x = self._floats(x)
        dims = self.rng.sample(range(x.rank), self.rng.randint(1, x.rank))
        kind = self.rng.choice(("sum", "mean", "amax", "amin", "var0.0", "var1.0"))
        return self.t.reduce(x, kind, dims)

    def _make_pool(self, x: Handle) -> Handle:
        x = self._floats(x)
        kernel = [self.rng.choice((1, 2, n)) for n in x.shape[2:]]
        padding = [self.rng.randint(0, k // 2) for k in kernel]
        window = {"kernel": kernel, "stride": [self.rng.choice((1, 2)) for _ in kernel], "padding": padding}
        if self.rng.random() < 0.5:
            return self.t.apply("max_pool", (x,), **window)
        count, divisor = self.rng.random() < 0.5, self.rng.choice((None, None, 2))
        return self.t.apply("avg_pool", (x,), **window, ceil_mode=False, count_include_pad=count, divisor=divisor)

    def _make_cumsum(self, x: Handle) -> Handle:
        return self.t.apply("cumsum", (self._floats(x),), dim=self._axis(x))

    def _make_topk(self, x: Handle) -> Handle:
        dim = self._axis(x)
        chosen = {"largest": self.rng.random() < 0.5, "item": self.rng.choice((0, 0, 1))}
        return self.t.apply("topk", (x,), k=self.rng.randint(1, x.shape[dim]), dim=dim, sorted=True, **chosen)

    # Look-ups

    def _make_index(self, x: Handle) -> Handle:
        first = self.rng.choice((x.rank - 1, max(0, x.rank - 2)))
        indices = []
        for position, size in enumerate(x.shape[first:]):
            after = (1,) * (x.rank - first - position - 1)
            times = self.rng.choice((0, 1, 2))
            length = size * times if times else self.rng.choice((1, 2, 3))
            facts = {"repeats": times} if times else {}
            indices.append(self.leaf((length, *after), "int64", bound=size, **facts))
        return self.t.apply("index", (x, *indices), first=first)

    def _make_embedding(self, x: Handle) -> Handle:
        shape = self.rng.choice(((2, 2), (3,), (1,)))
        return self.t.apply("embedding", (x, self.leaf(shape, "int64", bound=x.shape[0])))

    def _make_bag(self, x: Handle) -> Handle:
        bags = self.rng.choice((1, 2, 3))
        index = self.leaf((bags * self.rng.choice((1, 1, 2)),), "int64", bound=x.shape[0])
        return self.t.apply("embedding_bag", (self._floats(x), index, self.leaf((bags,), "int64", repeats=1)))

    def _make_scatter_add(self, x: Handle) -> Handle:
        dim = self._axis(x)
        shape = [self.rng.randint(1, 4) if axis == dim else self.rng.randint(1, n) for axis, n in enumerate(x.shape)]
        index = self.leaf(shape, "int64", bound=x.shape[dim])
        return self.t.apply("scatter_add", (x, index, self.leaf(shape, x.type.dtype)), dim=dim)


def below(graph: TermGraph, roots: Sequence[int]) -> TermGraph:
    """The part of ``graph`` that ``roots`` need, with those as its roots."""
    part = TermGraph()
    number: dict[int, int] = {}
    for old in graph.reachable(roots):
        node = graph.nodes[old]
        moved = Node(node.op, node.attrs, tuple(number[child] for child in node.children))
        number[old] = part.add(moved, graph.types[old], graph.constant[old])
    part.roots = [number[root] for root in roots]
    return part


def _is_tame(value: Tensor) -> bool:
    return value.numel() == 0 or float(value.double().abs().max()) <= LARGEST
