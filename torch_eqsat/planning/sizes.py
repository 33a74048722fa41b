"""Which numbers stand for the symbols of a graph, what it takes at other sizes, and guards that are taken back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

import sympy
import torch
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.fx import Graph

from torch_eqsat.errors import RebuildError
from torch_eqsat.graph.rebuilding.symbolic import Numbers, expressions_of, number_of, static_numbers, symbols_of
from torch_eqsat.planning.verdict import GraphInputs
from torch_eqsat.verification.hard_inputs import lying_at, sample_inputs

TRIES = 20  # of choices of primes
SMALLEST = 5  # of the primes that stand for sizes; a small batch keeps its price
UNLIKELY = 103
"""Numbers that laws make are hardly multiples of primes so large, or close to them: five weights of 512 columns,
merged, have 2560, which was read as 512 times a batch that 5 stood for. Prices are those of large sizes then."""
TILES = 8  # by how much an image may grow that is padded and filled up to tiles


def environment_of(graph: Graph) -> Any:
    """What knows the symbols of ``graph``. Raises RebuildError where there is none."""
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, FakeTensor) and value.fake_mode.shape_env is not None:
            return value.fake_mode.shape_env
    raise RebuildError("a graph with symbolic sizes has no environment of them")


def primes_for(graph: Graph, at_least: int = SMALLEST) -> Numbers:
    """A prime for each symbol of ``graph``: ``at_least`` so large, the same for most hints between two powers of 2, and
    none of the hints, so that the sizes of now show what holds for the primes alone. No symbolic size gets the number
    of a static one or of another. Raises RebuildError where the graph has sizes that depend on data."""
    hints, static = symbols_of(graph), static_numbers(graph)
    taken = set(hints.values()) | _bounds_of_tiles(graph)
    environment, sizes = environment_of(graph), expressions_of(graph)
    least = {s: max(at_least, 2 ** int(math.log2(max(2, hint)))) for s, hint in hints.items()}
    for _ in range(TRIES):
        numbers: dict[sympy.Symbol, int] = {}
        for symbol in sorted(hints, key=str):
            prime = least[symbol]
            used = {*taken, *numbers.values()}
            while not sympy.isprime(prime) or prime in used or any(n % prime == 0 for n in static if n > 1):
                prime += 1
            if prime not in environment.bound_sympy(symbol):
                raise RebuildError(f"{prime} is outside of the range of {symbol}")
            numbers[symbol] = prime
        found = [int(expression.xreplace(numbers)) for expression in sizes]
        if len(set(found)) == len(found) and not static & set(found):
            return numbers
        least = {symbol: number + 1 for symbol, number in numbers.items()}
    raise RebuildError("its sizes cannot be told from each other by numbers")


def _bounds_of_tiles(graph: Graph) -> set[int]:
    """The numbers up to which images of known sizes are filled up, and at which their tiles begin: laws make them, and
    as a number of a symbol they would be taken for it."""
    found: set[int] = set()
    for node in graph.nodes:
        if node.target is torch.ops.aten.convolution.default:
            image = node.args[0].meta["val"].shape[2:]
            found.update(n + k for n in image if type(n) is int for k in range(1, TILES + 1))
    return found


@contextmanager
def no_guards(environment: Any) -> Iterator[None]:
    """Raise RebuildError if the block adds a guard, and take it back with all that follows from it: a symbol that was
    found to be 17 compiles the model again for each other size."""
    held = vars(environment)
    kept = {name: _copied(value) for name, value in held.items() if isinstance(value, _KEPT) and name != _VERSION}
    symbols = set(environment.var_to_range)
    try:
        yield
        added = [guard.expr for guard in environment.guards[len(kept["guards"]) :]]
        changed = [name for name in _SAYING if getattr(environment, name, None) != kept.get(name)]
        changed += [str(s) for s in symbols if environment.var_to_range[s] != kept["var_to_range"][s]]
        if added or changed:
            raise RebuildError(f"a guard would be added: {', '.join(map(str, added)) or changed}")
    except BaseException:
        for name, value in kept.items():
            if isinstance(value, int):
                setattr(environment, name, value)
                continue
            held[name].clear()
            held[name].extend(value) if isinstance(value, list) else held[name].update(value)
        environment._update_version_counter()
        raise


_KEPT = (dict, list, set, int)
_VERSION = "_version_counter"  # it goes on: by it caches know what they were made of
_SAYING = ("replacements", "deferred_runtime_asserts", "num_deferred_runtime_asserts")
"""What of an environment is as good as a guard."""


def _copied(value: Any) -> Any:
    """A copy, also of the lists in a dictionary."""
    if isinstance(value, dict):
        same = copy(value)  # of its class, which may make what it lacks
        same.update({k: list(v) for k, v in value.items() if type(v) is list})
        return same
    return copy(value)


def other_sizes(graph: Graph, searched: Numbers) -> Iterator[Numbers]:
    """The sizes of now, and others that ``graph`` may have and that differ from those that were ``searched``, and from
    each other: small ones, neighbours, and numbers that are no primes."""
    environment, hints = environment_of(graph), symbols_of(graph)
    order = sorted(searched, key=str)
    choices: list[Numbers] = [
        hints,
        {symbol: 2 + index for index, symbol in enumerate(order)},
        {symbol: int(sympy.nextprime(searched[symbol] + index)) + 1 for index, symbol in enumerate(order)},
        {symbol: hints[symbol] + 1 + index for index, symbol in enumerate(order)},
        {symbol: max(2, hints[symbol] - 1 - index) for index, symbol in enumerate(order)},
    ]
    for numbers in choices:
        if all(n in environment.bound_sympy(s) and n != searched[s] for s, n in numbers.items()):
            yield numbers


def values_at(
    graph: Graph, numbers: Mapping[sympy.Symbol, int], inputs: GraphInputs, *, drawn: bool = False
) -> list[Any]:
    """Values for the placeholders of ``graph`` with other sizes: known ones, or random ones, cut or repeated. With
    ``drawn`` what floats and is no weight is random: where the known values are zeros a wrong factor is not seen."""
    nodes = graph.find_nodes(op="placeholder")
    hints = symbols_of(graph)
    samples, others = sample_inputs(graph, inputs.values), sample_inputs(graph, ())
    random = {i for i in inputs.live(len(nodes)) if drawn and _floats(nodes[i].meta.get("val"))}
    values: list[Any] = []
    with unset_fake_temporarily(), torch.no_grad():
        for index, (node, sample) in enumerate(zip(nodes, samples, strict=True)):
            fake = node.meta.get("val")
            if isinstance(fake, torch.SymInt):
                values.append(number_of(fake, numbers))
                continue
            if isinstance(fake, torch.Tensor):
                known = inputs.values[index] if index < len(inputs.values) else None
                if index in random:
                    sample = others[index]
                elif _fits(known, [number_of(n, hints) for n in fake.shape], fake.dtype):
                    sample = known
                sample = _resized(sample, [number_of(n, numbers) for n in fake.shape])
                if fake.layout is torch.strided:
                    sample = lying_at(sample, [number_of(n, numbers) for n in fake.stride()])
            values.append(sample)
    return values


def _floats(fake: Any) -> bool:
    return isinstance(fake, torch.Tensor) and fake.is_floating_point()


def _fits(value: Any, shape: Sequence[int], dtype: torch.dtype) -> bool:
    if not isinstance(value, torch.Tensor) or isinstance(value, FakeTensor):
        return False
    return list(value.shape) == list(shape) and value.dtype == dtype


def _resized(value: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    for dim, size in enumerate(shape):
        if value.shape[dim] != size:
            value = value.index_select(dim, torch.arange(size, device=value.device) % value.shape[dim])
    return value
