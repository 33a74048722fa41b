"""What is known of the layout of images, and what it makes of gathers."""

import pytest
import torch

from torch_eqsat.cost.inductor.layout import Layouts
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.cost.programs import captured_prices
from torch_eqsat.ir.builder import Builder, GraphStore
from torch_eqsat.ir.term import TermGraph

SHAPES = [(1, 8, 16, 16), (8, 8, 1, 1)]
GEOMETRY = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}


def upsampled(x):
    return torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest")


def between(x, w):
    return torch.conv2d(torch.relu(upsampled(torch.relu(torch.conv2d(x, w)))), w)


def between_copies(x, w):
    return torch.conv2d(upsampled(torch.conv2d(x, w).clone()).clone(), w)


def between_slices(x, w):
    return torch.conv2d(upsampled(torch.conv2d(x, w)[:, :, :8, :8]), w)


def sliced_input(x, w):
    return torch.conv2d(upsampled(x[:, :, :8, :8]), w)


def behind(x, w):
    return torch.relu(upsampled(torch.conv2d(x, w)))


def before(x, w):
    return torch.conv2d(upsampled(x), w)


def alone(x, w):
    return upsampled(torch.conv2d(x, w).sum(1, keepdim=True).reshape(16, 16)[None, None])


@pytest.mark.parametrize(
    ("function", "expected"),
    [(between, 1), (between_copies, 1), (between_slices, 1), (sliced_input, 0), (behind, 0), (before, 0), (alone, 0)],
)
def test_channels_are_moved_together_between_convolutions_alone(task_of, function, expected):
    graph = task_of(function, *SHAPES, static=(1,)).graph
    assert any(node.op == "index" for node in graph.nodes)
    assert len(Layouts(graph).gathers_of_channels()) == expected


def test_filters_of_images_lie_as_the_images_do():
    graph = TermGraph()
    t = Builder(GraphStore(graph))
    w = t.input(SHAPES[1])
    graph.constant[w.id] = True
    image = t.apply("conv", [t.input(SHAPES[0]), w], **GEOMETRY)
    filtered = t.filter_bank(image, [[1.0, 2.0]], dim=3, into=1)
    gathered = t.apply("index", [filtered, t.input((32, 1), "int64"), t.input((32,), "int64")], first=2)
    graph.roots = [t.apply("conv", [gathered, w], **GEOMETRY).id]
    assert len(Layouts(graph).gathers_of_channels()) == 1


def test_a_weight_that_is_not_known_says_nothing(task_of):
    assert not Layouts(task_of(between, *SHAPES).graph).gathers_of_channels()


def test_double_precision_is_no_call_of_onednn(task_of):
    def in_double(x, w):
        return between(x.double(), w.double())

    assert not Layouts(task_of(in_double, *SHAPES, static=(1,)).graph).gathers_of_channels()


@pytest.mark.parametrize("whole", [False, True])
def test_a_whole_program_knows_what_its_gathers_cost(task_of, whole):
    def gather_ms(function):
        task = task_of(function, *SHAPES, static=(1,))
        prices = captured_prices(task, Pricing(True, epilogues=True, whole=whole))
        parts = [part for term in task.parts for part in task.parts[term]]
        return max(prices(part) for part in parts if task.graph.nodes[part].op == "index")

    # Vectors of 8 channels against single elements of as many bytes.
    ratio = gather_ms(behind) / gather_ms(between)
    assert ratio > 8 if whole else ratio == 1


def test_each_convolution_of_a_slice_of_channels_has_it_copied(task_of):
    def some_channels(x, w, u, v):
        y = torch.conv2d(x, w)
        a, b = y[:, :4], y[:, 4:]
        return torch.conv2d(a, u) + torch.conv2d(torch.conv2d(a, v), v) + torch.conv2d(b.relu(), v) + b.sin()

    task = task_of(some_channels, *SHAPES, (4, 4, 1, 1), (4, 4, 1, 1), static=(1, 2, 3))
    assert sorted(Layouts(task.graph).copies_of_slices().values()) == [2]

    def ms(whole):
        prices = captured_prices(task, Pricing(True, epilogues=True, whole=whole))
        return sum(prices(t) for t, node in enumerate(task.graph.nodes) if node.op == "slice")

    assert ms(False) == 0.0 < ms(True)
