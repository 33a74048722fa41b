"""Banks of filters as calls, and taken apart."""

import random

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, GraphModule

from torch_eqsat.graph.whole import FILTER_BANK, TakeApart

BANKS = [
    (2, 1, 1, 1, [1.0, 0.5, 2.0], 1),
    (3, 1, 2, 1, [1.0, 0.0, -1.0, 0.0, 1.0, 1.0], 2),
    (2, 0, 1, 2, [0.5, 0.25, 1.0, -1.0], 2),
]


def by_hand(x, dim, into, step, dilation, coefficients, filters):
    """Each filter as a strided sum of shifted inputs."""
    taps = len(coefficients) // filters
    count = (x.shape[dim] - dilation * (taps - 1) - 1) // step + 1
    parts = []
    for k in range(filters):
        index = [torch.arange(count) * step + dilation * t for t in range(taps)]
        parts.append(sum(c * x.index_select(dim, i) for c, i in zip(coefficients[k * taps :], index, strict=False)))
    return torch.cat(parts, into)


def image(seed):
    """An image of some layout, of some dtype."""
    rng = random.Random(seed)
    axes = rng.sample(range(4), 4)
    sizes = [rng.randint(1, 3), rng.randint(1, 4), rng.randint(5, 9), rng.randint(5, 9)]
    stored = torch.randn([sizes[a] for a in axes], dtype=rng.choice([torch.float32, torch.float64]))
    return stored.permute([axes.index(a) for a in range(4)])


@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.parametrize("seed", range(6))
def test_the_call_is_what_it_is_made_of(bank, seed):
    """Its values, and for shapes without values its strides: Inductor plans layouts by those."""
    x = image(seed)
    y = FILTER_BANK(x, *bank)
    torch.testing.assert_close(y, by_hand(x, *bank))
    with FakeTensorMode() as mode:
        fake = FILTER_BANK(mode.from_tensor(x), *bank)
    assert (fake.shape, fake.stride(), fake.dtype) == (y.shape, y.stride(), y.dtype)


def test_nothing_is_left_of_it():
    x = torch.randn(2, 3, 8, 8)
    graph = Graph()
    placeholder = graph.placeholder("x")
    banks = [graph.call_function(FILTER_BANK, (placeholder, *bank)) for bank in (BANKS[0], BANKS[0], BANKS[1])]
    graph.output(tuple(banks))
    with FakeTensorMode() as mode:
        placeholder.meta["val"] = mode.from_tensor(x)
        for node in banks:
            node.meta |= {"val": node.target(placeholder.meta["val"], *node.args[1:]), "custom": {"kept": 1}}
    module = GraphModule({}, graph)
    expected = module(x)
    TakeApart("1", lambda _: None)(graph)
    graph.lint()
    module.recompile()
    torch.testing.assert_close(module(x), expected)
    results = graph.output_node().args[0]
    assert not graph.find_nodes(op="call_function", target=FILTER_BANK)
    assert all(node.meta["custom"] == {"kept": 1} and node.meta["val"].shape for node in results)
