"""All laws at once on random terms: whatever they put into one e-class has one value."""

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st
from torch_eqsat.rewrites import catalogue

from torch_eqsat.egraph.session import Session
from torch_eqsat.errors import TypeMismatchError
from torch_eqsat.graph.verify import find_disagreement
from torch_eqsat.ir.term import Node, TermGraph
from torch_eqsat.ir.types import TensorType
from torch_eqsat.rules.builder import Builder, GraphStore, Handle

LAWS = catalogue()
NODES, ROUNDS = 400, 3
# Sizes are powers of two, so that means and pools of small integers are exact in float64.
COMMON = ["add", "mul", "shift", "scale", "number", "permute", "view", "slice", "reduce", "pointwise", "cat", "pad"]
KINDS = {
    ((2, 4), (4, 4), (1, 4), (4,), (2, 4, 2)): [*COMMON, "expand", "embed", *["matmul", "siblings"] * 3],
    ((1, 2, 4, 4), (2, 4, 2, 2), (1, 4, 3, 3)): [*COMMON, "avg_pool", "resample", *["conv", "mix", "siblings"] * 3],
}
SIZES = ((4, 1), (2,))


class Store(GraphStore):
    """Inputs with a name in c are constants, and so is what depends on constants alone."""

    def insert(self, node: Node, type_: TensorType, /) -> int:
        constant = all(self.graph.constant[c] for c in node.children) if node.children else node.op == "scalar"
        return self.graph.add(node, type_, constant or (node.op == "input" and node["name"].startswith("c")))


class Grower:
    """Grows a term graph by operators that hypothesis draws."""

    def __init__(self, draw, shapes) -> None:
        self.draw = draw
        self.graph = TermGraph()
        self.t = Builder(Store(self.graph))
        self.pool: list[Handle] = [self.leaf(draw(st.sampled_from(shapes)))]
        self.nonlinear = 0

    def leaf(self, shape) -> Handle:
        name = f"{self.draw(st.sampled_from('cx'))}{len(self.graph)}"
        return self.t.apply("input", [], name=name, shape=tuple(shape), dtype="float32")

    def operand(self) -> Handle:
        return self.pool[-1 - self.draw(st.integers(0, min(3, len(self.pool) - 1)))]

    def pair(self, strategy):
        return (self.draw(strategy), self.draw(strategy))

    def grow(self, op: str) -> None:
        x = self.operand()
        with contextlib.suppress(TypeMismatchError):
            self.pool.append(getattr(self, f"_{op}")(x))
        if self.pool[-1].numel > 512:
            self.pool.pop()

    def _partner(self, x: Handle) -> Handle:
        same = [y for y in self.pool if y.shape == x.shape]
        return self.draw(st.sampled_from(same)) if self.draw(st.booleans()) else self.leaf(x.shape)

    def _add(self, x):
        return self.t.add(x, self._partner(x))

    def _mul(self, x):
        return self.t.mul(x, self._partner(x))

    def _small(self, x):
        shape = [n if self.draw(st.booleans()) else 1 for n in x.shape]
        return self.leaf(shape[self.draw(st.integers(0, max(0, x.rank - 1))) :])

    def _shift(self, x):
        return self.t.add(x, self._small(x))

    def _scale(self, x):
        return self.t.mul(x, self._small(x))

    def _number(self, x):
        return self.t.mul(x, self.t.scalar(self.draw(st.sampled_from([1.0, 0.5, -1.0, 2.0]))))

    def _matmul(self, x):
        other = [y for y in self.pool if y.rank == x.rank]
        if self.draw(st.booleans()):
            return self.t.matmul(x, self.draw(st.sampled_from(other)))
        if x.rank not in (2, 3):
            raise TypeMismatchError("no matrix")
        k = self.draw(st.sampled_from([1, 2, 4]))
        if self.draw(st.booleans()):
            return self.t.matmul(x, self.leaf((*x.shape[:-2], x.shape[-1], k)))
        return self.t.matmul(self.leaf((*x.shape[:-2], k, x.shape[-2])), x)

    def _mix(self, x):
        """A convolution that mixes channels only."""
        if x.rank != 4:
            raise TypeMismatchError("no image")
        weight = self.leaf((self.draw(st.sampled_from([2, x.shape[1]])), x.shape[1], 1, 1))
        return self._same(x, weight)

    def _siblings(self, x):
        """A sum of two products or convolutions of one input."""
        if x.rank == 4:
            kernel = self.draw(st.sampled_from([1, 3]))
            first = self._same_size(x, kernel)
            rest = [x, self.t.mul(x, self._small(x)), self._same_size(x, 1), self._same_size(x, 3)]
            return self.t.add(first, self.draw(st.sampled_from(rest)))
        if x.rank not in (2, 3):
            raise TypeMismatchError("no matrix")
        n = x.shape[-1]
        if self.draw(st.booleans()):
            return self.t.add(*(self.t.matmul(x, self.leaf((*x.shape[:-2], n, n))) for _ in range(2)))
        rows = x.shape[-2]
        return self.t.add(*(self.t.matmul(self.leaf((*x.shape[:-2], rows, rows)), x) for _ in range(2)))

    def _same_size(self, x, kernel):
        groups = self.draw(st.sampled_from([1, x.shape[1]]))
        weight = self.leaf((x.shape[1], x.shape[1] // groups, kernel, kernel))
        return self._same(x, weight, (kernel // 2,) * 2, groups)

    def _same(self, x, weight, padding=(0, 0), groups=1):
        """A convolution of stride 1."""
        return self.t.apply("conv", (x, weight), stride=(1, 1), padding=padding, dilation=(1, 1), groups=groups)

    def _resample(self, x):
        if x.rank != 4:
            raise TypeMismatchError("no image")
        rows, columns = (self.t.apply("input", [], name=f"i{len(self.graph)}", shape=s, dtype="int64") for s in SIZES)
        if min(x.shape[2:]) < 2:
            raise TypeMismatchError("indices are 0 and 1")
        return self.t.apply("index", (x, rows, columns), first=2)

    def _embed(self, x):
        index = self.t.apply("input", [], name=f"i{len(self.graph)}", shape=(2, 2), dtype="int64")
        if x.rank != 2 or x.shape[0] < 2:
            raise TypeMismatchError("no table")
        return self.t.apply("embedding", (x, index))

    def _conv(self, x):
        if x.rank != 4:
            raise TypeMismatchError("no image")
        kernel = self.draw(st.sampled_from([(1, 1), (1, 1), (3, 3), (2, 2), (1, 3)]))
        groups = self.draw(st.sampled_from([g for g in (1, 2) if x.shape[1] % g == 0]))
        out = self.draw(st.sampled_from([groups, 2 * groups, x.shape[1]]))
        padding = tuple(k // 2 if self.draw(st.booleans()) else 0 for k in kernel)
        stride = self.draw(st.sampled_from([(1, 1), (1, 1), (2, 2)]))
        dilation = self.draw(st.sampled_from([(1, 1), (1, 1), (2, 1)]))
        weight = self.leaf((out, x.shape[1] // groups, *kernel))
        return self.t.apply("conv", (x, weight), stride=stride, padding=padding, dilation=dilation, groups=groups)

    def _permute(self, x):
        return self.t.permute(x, self.draw(st.permutations(range(x.rank))))

    def _view(self, x):
        n = x.numel
        targets = [(n,), (1, n), (2, n // 2), (n // 2, 2), (2, 2, n // 4), (1, 2, 2, n // 4), (*x.shape, 1)]
        return self.t.view(x, self.draw(st.sampled_from(targets)))

    def _expand(self, x):
        return self.t.expand(x, [4 if n == 1 else n for n in x.shape])

    def _slice(self, x):
        dim = self.draw(st.integers(0, x.rank - 1))
        start = self.draw(st.integers(0, x.shape[dim] - 1))
        length = self.draw(st.sampled_from([n for n in (1, 2, 4) if start + n <= x.shape[dim]]))
        return self.t.slice(x, dim, start, start + length)

    def _reduce(self, x):
        dims = self.draw(st.sets(st.integers(0, x.rank - 1), min_size=1))
        exact = all(x.shape[d] & (x.shape[d] - 1) == 0 for d in dims)
        return self.t.reduce(x, self.draw(st.sampled_from(["sum", "amax", "mean"] if exact else ["sum", "amin"])), dims)

    def _avg_pool(self, x):
        kernel = self.pair(st.sampled_from([1, 2]))
        padding = tuple(self.draw(st.integers(0, k // 2)) for k in kernel)
        window = {"kernel": kernel, "stride": self.pair(st.sampled_from([1, 2])), "padding": padding}
        count, divisor = self.draw(st.booleans()), self.draw(st.sampled_from([None, None, 2]))
        return self.t.apply("avg_pool", (x,), **window, ceil_mode=False, count_include_pad=count, divisor=divisor)

    def _pointwise(self, x):
        self.nonlinear += 1
        if self.nonlinear > 1:  # cubes of cubes leave the integers that float64 holds
            raise TypeMismatchError("enough")
        others = [self._small(x)] if self.draw(st.booleans()) else []
        return self.t.apply("pointwise", (x, *others), uid=f"f{len(others)}", dtype="float32")

    def _cat(self, x):
        return self.t.cat([x, self._partner(x)], self.draw(st.integers(0, x.rank - 1)))

    def _pad(self, x):
        return self.t.pad(x, [(self.draw(st.integers(0, 1)), self.draw(st.integers(0, 1))) for _ in x.shape])


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_random_terms(data):
    shapes = data.draw(st.sampled_from(list(KINDS)))
    grower = Grower(data.draw, shapes)
    for op in data.draw(st.lists(st.sampled_from(KINDS[shapes]), min_size=3, max_size=7)):
        grower.grow(op)
    grower.graph.roots = [grower.pool[-1].id]
    session = Session(LAWS, NODES)
    try:
        session.load(grower.graph)
        fired = {}
        for _ in range(ROUNDS):
            step = session.apply(LAWS)
            fired |= step.fired
            if step.truncated or not step.fired:
                break
        snapshot = session.snapshot()
    finally:
        session.close()
    problem = find_disagreement(snapshot)
    assert not problem, f"{problem}\nafter {sorted(fired)} on\n{grower.graph.format()}"
