"""The nine graphs of the paper that the search comes from, as modules, and as tasks captured from them.

"Optimizing Tensor Computation Graphs with Equality Saturation and Monte Carlo Tree Search" (Hartmann, He, Yoneki,
PACT 2024) took its graphs from TASO and TENSAT: batch 1, float32, convolutions and linear layers without biases, batch
normalisation folded away. Six are torchvision's models treated likewise; the three below are written out after the
papers' descriptions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._inductor.decomposition import select_decomp_table
from torch._subclasses import FakeTensorMode
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from torch_eqsat.graph.capture import Capture, capture
from torch_eqsat.ir.program import Task

Built = tuple[nn.Module, tuple[Tensor, ...]]


class BertOfThePaper(nn.Module):
    """8 blocks, 1,024 wide, 64 tokens, 16 heads. Queries, keys, values and the output layer of a block all read the
    block's input; there is no softmax, norm or feed-forward part, and the attentions are results of their own."""

    def __init__(self, blocks: int = 8, width: int = 1024, heads: int = 16) -> None:
        super().__init__()
        self.heads = heads
        self.layers = nn.ModuleList(
            nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(4)) for _ in range(blocks)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """The attentions of all blocks and the last output, for x [tokens, width]."""
        results = []
        for layers in self.layers:
            query, key, value, output = (layer(x) for layer in layers)
            query, key, value = (t.view(t.shape[0], self.heads, -1).transpose(0, 1) for t in (query, key, value))
            results.append((query @ key.transpose(1, 2)) @ value)
            x = output
        return [*results, x]


class NasRnn(nn.Module):
    """The cell that neural architecture search found (Zoph and Le 2017), 5 steps of width 512. Each step has eight
    sums of a product with the input and one with the state, and weights of its own, as in TASO's graph."""

    def __init__(self, steps: int = 5, width: int = 512) -> None:
        super().__init__()
        self.gates = nn.ModuleList(
            nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(16)) for _ in range(steps)
        )

    def forward(self, state: Tensor, *inputs: Tensor) -> Tensor:
        """The last state, for a state [1, width] and an input [1, width] a step."""
        for x, gates in zip(inputs, self.gates, strict=True):
            t = [gates[2 * i](x) + gates[2 * i + 1](state) for i in range(8)]
            first = t[0].relu() + t[3].sigmoid()
            second = t[1].sigmoid() + t[2].tanh()
            third = t[4].sigmoid() * t[5].tanh()
            fourth = t[6].sigmoid() * t[7].relu()
            left = second.sigmoid() + third.tanh()
            right = first.tanh() * fourth.tanh()
            state = (left.tanh() * right.tanh()).tanh()
        return state


class _Separable(nn.Module):
    def __init__(self, channels: int, window: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, window, stride, window // 2, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


def _average(x: Tensor, stride: int = 1) -> Tensor:
    return functional.avg_pool2d(x, 3, stride, 1)


def _maximum(x: Tensor, stride: int) -> Tensor:
    return functional.max_pool2d(x, 3, stride, 1)


class _NormalCell(nn.Module):
    """NASNet-A's normal cell (Zoph et al. 2018, figure 4)."""

    def __init__(self, before: int, now: int, channels: int, shrink: int) -> None:
        super().__init__()
        self.squeeze_before = nn.Conv2d(before, channels, 1, shrink, bias=False)
        self.squeeze_now = nn.Conv2d(now, channels, 1, bias=False)
        self.separable = nn.ModuleList(_Separable(channels, window) for window in (3, 3, 5, 5, 3))

    def forward(self, before: Tensor, now: Tensor) -> Tensor:
        before, now = self.squeeze_before(before.relu()), self.squeeze_now(now.relu())
        a, b, c, d, e = self.separable
        parts = [
            a(now) + now,
            b(before) + c(now),
            _average(now) + before,
            _average(before) + _average(before),
            d(before) + e(before),
        ]
        return torch.cat(parts, 1)


class _ReductionCell(nn.Module):
    """NASNet-A's reduction cell; halves height and width."""

    def __init__(self, before: int, now: int, channels: int) -> None:
        super().__init__()
        self.squeeze_before = nn.Conv2d(before, channels, 1, bias=False)
        self.squeeze_now = nn.Conv2d(now, channels, 1, bias=False)
        self.separable = nn.ModuleList(_Separable(channels, window, 2) for window in (7, 5, 7, 5))
        self.last = _Separable(channels, 3)

    def forward(self, before: Tensor, now: Tensor) -> Tensor:
        before, now = self.squeeze_before(before.relu()), self.squeeze_now(now.relu())
        a, b, c, d = self.separable
        first = a(before) + b(now)
        second = _maximum(now, 2) + c(before)
        third = _average(now, 2) + d(before)
        fourth = _maximum(now, 2) + self.last(first)
        fifth = _average(first) + second
        return torch.cat([second, third, fourth, fifth], 1)


class NasNetA(nn.Module):
    """Three stages of normal cells with 128, 256 and 512 channels, a reduction cell between them."""

    def __init__(self, cells: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.cells = nn.ModuleList()
        before = now = 64
        shrink = 1
        for stage, channels in enumerate((128, 256, 512)):
            if stage:
                self.cells.append(_ReductionCell(before, now, channels))
                before, now, shrink = now, 4 * channels, 2
            for _ in range(cells):
                self.cells.append(_NormalCell(before, now, channels, shrink))
                before, now, shrink = now, 5 * channels, 1

    def forward(self, image: Tensor) -> Tensor:
        """Features of an image [1, 3, 224, 224]."""
        before = now = _maximum(self.stem(image).relu(), 2)
        for cell in self.cells:
            before, now = now, cell(before, now)
        return now


def _torchvision(name: str, size: int = 224, **arguments: bool) -> Callable[[], Built]:
    def make() -> Built:
        import torchvision

        module = torchvision.models.get_model(name, weights=None, **arguments)
        return _without_biases(module), (torch.empty(1, 3, size, size),)

    return make


def _without_biases(module: nn.Module) -> nn.Module:
    """``module`` as TASO builds it: no batch normalisation (folded at inference), no biases."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, nn.Identity())
            elif isinstance(child, (nn.modules.conv._ConvNd, nn.Linear)):
                child.bias = None
    return module


GRAPHS: dict[str, Callable[[], Built]] = {
    "bert": lambda: (BertOfThePaper(), (torch.empty(64, 1024),)),
    "inception_v3": _torchvision("inception_v3", 299, init_weights=False, aux_logits=False),
    "mobilenet_v2": _torchvision("mobilenet_v2"),
    "nasnet_a": lambda: (NasNetA(), (torch.empty(1, 3, 224, 224),)),
    "nasrnn": lambda: (NasRnn(), tuple(torch.empty(1, 512) for _ in range(6))),
    "resnet50": _torchvision("resnet50"),
    "resnext50": _torchvision("resnext50_32x4d"),
    "squeezenet": _torchvision("squeezenet1_0"),
    "vgg19": _torchvision("vgg19"),
}
"""The graphs of the paper by name."""


def traced(make: Callable[[], Built]) -> tuple[Graph, set[Node]]:
    """The functional graph of ATen calls of a module, and its placeholders of weights; no tensor holds memory."""
    with FakeTensorMode(), torch.no_grad():
        module, inputs = make()
        module.eval()
        parameters = {**dict(module.named_parameters()), **dict(module.named_buffers())}

        def run(weights: dict[str, Tensor], *arguments: Tensor) -> object:
            return torch.func.functional_call(module, weights, arguments)

        functional_run = torch.func.functionalize(run, remove="mutations")
        # Max pooling stays one operator, which can be timed alone.
        decompositions = {op: d for op, d in select_decomp_table().items() if "max_pool2d" not in str(op)}
        graph = make_fx(functional_run, decomposition_table=decompositions)(parameters, *inputs).graph
    graph.eliminate_dead_code()
    return graph, set(graph.find_nodes(op="placeholder")[: len(parameters)])


def captured(make: Callable[[], Built]) -> Capture:
    """What the backend would see of a module with frozen weights."""
    return capture(*traced(make))


def task_of(found: Capture) -> Task:
    """The task of a capture."""
    return Task(found.graph, found.parts)
