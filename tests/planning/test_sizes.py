"""Numbers for symbols, and guards that are taken back."""

import pytest
import sympy
import torch
from torch.fx import Graph
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from torch_eqsat.errors import RebuildError
from torch_eqsat.graph.rebuilding.symbolic import expressions_of, static_numbers, symbols_of, with_numbers
from torch_eqsat.planning.sizes import no_guards, primes_for


def traced(function, *inputs):
    return make_fx(function, tracing_mode="symbolic")(*inputs).graph


def test_primes_tell_all_sizes_apart():
    """Of a length of 17 the length less one was 16, as was a width."""
    x, y = torch.ones(9, 18), torch.ones(9, 18, 16)
    graph = traced(lambda x, y: (torch.cat([x, x[:, : x.shape[1] - 1]], 1).sum(), y @ torch.ones(16, 3)), x, y)
    numbers = primes_for(graph)
    assert set(numbers) == set(symbols_of(graph)) and all(map(sympy.isprime, numbers.values()))
    sizes = [int(e.xreplace(numbers)) for e in expressions_of(graph)]
    assert len(set(sizes)) == len(sizes) and not set(sizes) & static_numbers(graph)


@pytest.mark.parametrize(("one", "other"), [(33, 63), (64, 127), (8, 10)])
def test_hints_between_two_powers_of_two_share_numbers(one, other):
    """So that a plan of one length is that of another."""
    first, second = (primes_for(traced(torch.sin, torch.ones(n, 5))) for n in (one, other))
    assert sorted(first.values()) == sorted(second.values())


def test_a_copy_has_numbers_everywhere():
    graph = traced(lambda x: x.flatten().sum(0) / x.shape[0], torch.ones(6, 10))
    numbers = primes_for(graph)
    static = with_numbers(graph, numbers)
    values = [n.meta["val"] for n in static.graph.nodes if isinstance(n.meta.get("val"), torch.Tensor)]
    assert all(type(size) is int for value in values for size in value.shape)
    assert not any(isinstance(n.meta.get("val"), torch.SymInt) for n in static.graph.nodes)
    assert {n.op for n in static.original_of} == {"placeholder", "call_function", "output"}


def test_sizes_that_depend_on_data():
    graph = traced(lambda x: torch.nonzero(x).sum(1), torch.ones(6, 10))
    with pytest.raises((RebuildError, TypeError)):
        with_numbers(graph, primes_for(graph))


def test_a_guard_is_taken_back_with_what_follows_from_it():
    """The symbol was left at 17, and each other size compiled the model again."""
    environment = ShapeEnv()
    graph: Graph = make_fx(torch.sin, tracing_mode="symbolic")(torch.ones(17, 3)).graph
    (size,) = (n for n in graph.find_nodes(op="placeholder")[0].meta["val"].shape[:1])
    environment = size.node.shape_env
    ranges, guards = dict(environment.var_to_range), len(environment.guards)
    with pytest.raises(RebuildError, match="a guard would be added"), no_guards(environment):
        assert size == 17
    assert environment.var_to_range == ranges and len(environment.guards) == guards and not environment.replacements
    with no_guards(environment):
        assert size + 1 != 1
