"""Graphs with symbolic sizes as graphs with sizes that are numbers, and what was made of those back with symbols.

Each symbol gets a prime that divides no number of the graph. A size in a rewritten call is then known by its number:
that of a size of the captured graph, a product of such numbers, or one of them plus or minus 1 or 2. Whether that was
right is decided afterwards, see `planning/dynamic.py`: the sizes of all results are compared as expressions, and both
graphs are run at other sizes.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch._inductor.pattern_matcher import stable_topological_sort
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, GraphModule
from torch.fx import Node as FxNode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from torch_eqsat.errors import RebuildError
from torch_eqsat.graph.calls import is_pinned, positions_of_axes
from torch_eqsat.graph.fx import STORED, check_cut, late_nodes, mark_stored, outputs_of
from torch_eqsat.graph.rebuilding.ends import SMALL, from_the_end
from torch_eqsat.graph.rebuilding.operands import mark_symbolic_numbers

aten = torch.ops.aten
Numbers = Mapping[sympy.Symbol, int]
_LARGEST = 2**40  # of a size; the end of a slice is 2⁶³ − 1
_SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


def symbols_of(graph: Graph) -> dict[sympy.Symbol, int]:
    """The symbols in the sizes of ``graph`` and their hints; those without one are left out."""
    found: dict[sympy.Symbol, int] = {}
    for value in _sizes(graph):
        expression = value.node.expr
        if isinstance(expression, sympy.Symbol) and value.node.hint is not None:
            found[expression] = int(value.node.hint)
        for symbol in expression.free_symbols - found.keys():
            hint = value.node.shape_env.backed_var_to_val.get(symbol)
            if hint is not None:
                found[symbol] = int(hint)
    return found


def is_symbolic(graph: Graph) -> bool:
    """Whether some size of ``graph`` is a symbol."""
    return any(True for _ in _sizes(graph))


def _sizes(graph: Graph) -> Iterator[torch.SymInt]:
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            yield from (n for n in value.shape if isinstance(n, torch.SymInt))
        elif isinstance(value, torch.SymInt):
            yield value


def expressions_of(graph: Graph) -> set[sympy.Expr]:
    """The sizes of ``graph`` that depend on symbols."""
    return {n.node.expr for n in _sizes(graph) if n.node.expr.free_symbols}


def number_of(size: Any, numbers: Numbers) -> int:
    """A size with ``numbers`` in place of its symbols. Raises RebuildError where that is none."""
    if isinstance(size, (torch.SymFloat, torch.SymBool)):
        raise RebuildError(f"{size} is made of sizes and is none")
    if not isinstance(size, torch.SymInt):
        return int(size)
    found = sympy.sympify(size.node.expr.xreplace(dict(numbers)))
    if not found.is_Integer:
        raise RebuildError(f"a size of {size} is not known")
    return int(found)


def static_numbers(graph: Graph) -> set[int]:
    """The numbers in the sizes and arguments of ``graph``."""
    found: set[int] = set()
    for node in graph.nodes:
        leaves, _ = tree_flatten((node.args, node.kwargs))
        found.update(leaf for leaf in leaves if type(leaf) is int)
        value = node.meta.get("val")
        found.update(n for n in (value.shape if isinstance(value, torch.Tensor) else ()) if type(n) is int)
    return found


@dataclass(frozen=True)
class Static:
    """``graph``, a copy of a symbolic one with ``numbers``, and for each of its nodes the one it is a copy of."""

    graph: Graph
    numbers: Numbers
    original_of: Mapping[FxNode, FxNode]


def with_numbers(graph: Graph, numbers: Numbers) -> Static:
    """A copy of ``graph``. Raises RebuildError where the results would not have the sizes that symbols tell."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    copy, copy_of = Graph(), dict[FxNode, Any]()
    with torch._guards.tracing(None), mode:
        for node in graph.nodes:
            value = node.meta.get("val")
            if isinstance(value, _SYMBOLIC) and node.op != "placeholder":
                copy_of[node] = number_of(value, numbers)
                continue
            made = copy.node_copy(node, lambda n: copy_of[n])
            if node.op != "output":
                made.meta = {**node.meta, "val": _value(made, value, numbers, mode, graph)}
            copy_of[node] = made
            if node.op == "placeholder" and isinstance(value, _SYMBOLIC):
                copy_of[node] = number_of(value, numbers)
    module = GraphModule(graph.owning_module, copy)
    number_back = {made: node for node, made in copy_of.items() if isinstance(made, FxNode)}
    mark_symbolic_numbers(copy, number_back)
    placeholders = zip(copy.find_nodes(op="placeholder"), graph.find_nodes(op="placeholder"), strict=True)
    return Static(module.graph, numbers, {**number_back, **dict(placeholders)})


def _value(made: FxNode, value: Any, numbers: Numbers, mode: FakeTensorMode, graph: Graph) -> Any:
    """What stands for the value of a copied node."""
    if made.op == "placeholder":
        if not isinstance(value, torch.Tensor):
            return number_of(value, numbers) if isinstance(value, torch.SymInt) else value
        sizes, strides = ([number_of(n, numbers) for n in ns] for ns in (value.shape, value.stride()))
        return torch.empty_strided(sizes, strides, dtype=value.dtype, device=value.device)
    if made.op == "get_attr":
        held = getattr(graph.owning_module, str(made.target))
        return mode.from_tensor(held) if isinstance(held, torch.Tensor) else value
    if not isinstance(made.target, (torch._ops.OpOverload, type(operator.getitem))):
        raise RebuildError(f"{made.target} is called on symbolic sizes")
    args, kwargs = torch.fx.map_arg((made.args, made.kwargs), lambda n: n.meta["val"])
    found = made.target(*args, **kwargs)
    for new, old in zip(tree_flatten(found)[0], tree_flatten(value)[0], strict=True):
        if isinstance(old, torch.Tensor) and [number_of(n, numbers) for n in old.shape] != list(new.shape):
            raise RebuildError(f"{made} has another shape with numbers for its symbols")
    return found


@dataclass
class _Back:
    """Carries a rewritten static graph back into ``graph``, the symbolic one."""

    graph: Graph
    static: Static
    new_of: dict[FxNode, FxNode] = field(default_factory=dict)
    _sizes: dict[int, Any] = field(default_factory=dict)
    _made: dict[int, Any] = field(default_factory=dict)
    _static: set[int] = field(default_factory=set)
    _counted: int = 0

    def __post_init__(self) -> None:
        self._static = static_numbers(self.graph)
        self.before = next(n for n in self.graph.nodes if n.op != "placeholder")
        for node in sorted(self.graph.nodes, key=late_nodes(self.graph).__contains__):  # a forward reads no gradient
            value = node.meta.get("val")
            if isinstance(value, torch.SymInt):
                self._sizes.setdefault(number_of(value, self.static.numbers), node)
            elif isinstance(value, torch.Tensor):
                for dim, size in enumerate(value.shape):
                    if isinstance(size, torch.SymInt):
                        self._sizes.setdefault(number_of(size, self.static.numbers), (node, dim))

    def carry(self) -> None:
        for node in self.static.graph.nodes:
            original = self.static.original_of.get(node)
            if node.op == "output":
                original = self.graph.output_node()
            if original is None:
                self.new_of[node] = self._constant(node) if node.op == "get_attr" else self._call(node)
                continue
            self.new_of[node] = original
            if STORED in node.meta:
                mark_stored(original)
            self._redirect(node, original)

    def _redirect(self, node: FxNode, original: FxNode) -> None:
        """Give ``original`` the operands that its copy has now."""
        old, spec = tree_flatten((original.args, original.kwargs))
        new, other = tree_flatten((node.args, node.kwargs))
        if spec != other:
            raise RebuildError(f"{original} takes other arguments")
        leaves = [self.new_of[n] if isinstance(n, FxNode) else o for n, o in zip(new, old, strict=True)]
        if leaves != old:
            original.args, original.kwargs = tree_unflatten(leaves, spec)

    def _call(self, node: FxNode) -> FxNode:
        def symbolic(leaf: Any) -> Any:
            if isinstance(leaf, FxNode):
                return self.new_of[leaf]
            return self._size(leaf) if type(leaf) is int else leaf

        args = self._from_the_end(node) if node.target in (aten.slice.Tensor, aten.select.int) else node.args
        of_axes = positions_of_axes(node.target)
        args = tuple(arg if n in of_axes else tree_map(symbolic, arg) for n, arg in enumerate(args))
        return self._added(node.target, args, tree_map(symbolic, node.kwargs), node)

    def _from_the_end(self, node: FxNode) -> Any:
        if len(node.args) < 3:
            return node.args
        x, dim, *_ = node.args
        if not isinstance(self.new_of[x].meta["val"].shape[dim], torch.SymInt):
            return node.args
        return from_the_end(node, self.static.numbers.values(), self._static | self._sizes.keys())

    def _added(self, target: Any, args: Any, kwargs: Any, like: FxNode | None = None) -> FxNode:
        values = torch.fx.map_arg((args, kwargs), lambda n: n.meta["val"])
        with torch._guards.detect_fake_mode([n.meta["val"] for n in self.graph.find_nodes(op="placeholder")]):
            value = target(*values[0], **values[1])
        with self.graph.inserting_before(self.before):
            made = self.graph.call_function(target, args, kwargs)
        made.meta = {**(like.meta if like is not None else {}), "val": value}
        return made

    def _size(self, number: int) -> Any:
        """The size that a number stands for, or the number itself."""
        if number not in self._made:
            self._made[number] = self._found(number)
        return self._made[number]

    def _found(self, number: int) -> Any:
        if not 1 < number < _LARGEST:
            return number
        if number in self._sizes:
            return self._known(number)
        if prime := next((p for p in self.static.numbers.values() if number % p == 0), 0):
            return self._product(number, prime)
        if number > SMALL and number not in self._static:  # the start of the last row is a length less one
            for more in (1, -1, 2, -2):
                if number + more in self._sizes:
                    return self._added(operator.sub, (self._size(number + more), more), {})
        return number

    def _known(self, number: int) -> FxNode:
        held = self._sizes[number]
        return held if isinstance(held, FxNode) else self._added(aten.sym_size.int, held, {})

    def _product(self, number: int, prime: int) -> FxNode:
        if prime not in self._sizes:
            raise RebuildError(f"no tensor has the size that {number} is a multiple of")
        return self._added(operator.mul, (self._size(prime), self._size(number // prime)), {})

    def _constant(self, node: FxNode) -> FxNode:
        """A buffer of the static graph: as it is, or if it has symbolic sizes and one value, a call."""
        held = getattr(node.graph.owning_module, str(node.target))
        sizes = [self._size(n) for n in held.shape]
        if any(isinstance(n, FxNode) for n in sizes):
            value = held.flatten()[0]
            if not bool((held == value).all()):
                raise RebuildError(f"a table of {list(held.shape)} is made for one size")
            given = {"dtype": held.dtype, "device": held.device}
            return self._added(aten.full.default, (sizes, value.item()), given)
        module = self.graph.owning_module
        while hasattr(module, name := f"_eqsat_carried_{self._counted}"):
            self._counted += 1
        module.register_buffer(name, held)
        with self.graph.inserting_before(self.before):
            made = self.graph.get_attr(name)
        mode = torch._guards.detect_fake_mode([n.meta["val"] for n in self.graph.find_nodes(op="placeholder")])
        made.meta = {**node.meta, "val": mode.from_tensor(held, static_shapes=True)}
        return made


def carry_back(graph: Graph, static: Static) -> None:
    """Rewrite ``graph`` as its copy ``static`` was. Raises RebuildError, with ``graph`` in an undefined state, where a
    size is not known or a result would have another one."""
    before, late = outputs_of(graph), late_nodes(graph)
    values = [n.meta.get("val") for n in before]
    _Back(graph, static).carry()
    stable_topological_sort(graph)
    graph.eliminate_dead_code(is_impure_node=is_pinned)
    graph.lint()
    check_cut(graph, late, before)
    for old, node in zip(values, outputs_of(graph), strict=True):
        new = node.meta.get("val")
        if isinstance(old, torch.Tensor) and not (isinstance(new, torch.Tensor) and _alike(old, new)):
            raise RebuildError(f"{node} has not the sizes of the result that it stands for")


def _alike(old: torch.Tensor, new: torch.Tensor) -> bool:
    """Whether all sizes are equal as expressions: a comparison of symbols would add a guard. How results may lie in
    memory was decided on the static graph."""
    return new.dtype == old.dtype and old.dim() == new.dim() and all(map(_equal, old.shape, new.shape))


def _equal(one: Any, other: Any) -> bool:
    a, b = (n.node.expr if isinstance(n, torch.SymInt) else sympy.Integer(n) for n in (one, other))
    return bool(sympy.expand(a - b) == 0)
