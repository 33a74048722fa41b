"""What the comparison of prices is about: heavy kernels of known models, fusible operators, groups that Inductor fuses.

An operator is measured alone, a group as one fused kernel: prices take fusible work as fused with its neighbours, which
only groups can show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.models.cases import CASES
from bench.models.paper_graphs import GRAPHS, Built, captured, task_of
from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.model import Missing
from torch_eqsat.cost.pricing import Pricing
from torch_eqsat.cost.programs import captured_program

COPIES = 8
"""How often a graph holds an operator, each time with inputs and weights of its own: the call's overhead is small."""

WARM_BYTES = 2**20
"""Of fusible operators only so many copies that their inputs stay in the cache, as between neighbours in a graph."""

HEAVY = 40
_SOURCES = (
    *(CASES[name].make for name in ("bert_base", "lstm_loop", "linear_attention")),
    *(GRAPHS[name] for name in ("resnet50", "mobilenet_v2", "nasrnn")),
)
# Those of GPT-2 and RepVGG-A0, whose code looks at the values of tensors and is not traced without any.
_ATTENTION = [(1, 12, 128, 64)] * 3
_OTHERS = (
    Kernel.matmul((128, 768), (768, 2304), weight=True),
    Kernel.matmul((1, 768), (768, 50257), weight=True),
    Kernel.sdpa(*_ATTENTION, causal=True),
    Kernel.conv((1, 3, 224, 224), (48, 3, 3, 3), stride=2, padding=1, weight=True),
    Kernel.conv((1, 96, 28, 28), (96, 96, 3, 3), padding=1, weight=True),
)


@dataclass(frozen=True)
class Subject:
    """Something to predict and to measure: ``make`` gives a module of one copy and its ``inputs`` many inputs, of which
    a graph holds ``count`` copies."""

    name: str
    kind: str
    make: Callable[[], Built]
    inputs: int
    count: int = COPIES

    def copies(self) -> Built:
        """A module of all copies and the inputs of all."""
        built = [self.make() for _ in range(self.count)]
        return _Copies([module for module, _ in built]), tuple(x for _, inputs in built for x in inputs)


class _Copies(nn.Module):
    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.copies = nn.ModuleList(modules)

    def forward(self, *inputs: Tensor) -> list[Any]:
        each = len(inputs) // len(self.copies)
        return [copy(*inputs[i * each : (i + 1) * each]) for i, copy in enumerate(self.copies)]


class _Function(nn.Module):
    """A function of the inputs, and of a weight if there is one."""

    def __init__(self, function: Callable[..., Any], weight: Tensor | None = None) -> None:
        super().__init__()
        self.function = function
        self.weight = None if weight is None else nn.Parameter(weight)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs) if self.weight is None else self.function(*inputs, self.weight)


def tiny(inputs: int, count: int) -> Subject:
    """Copies of which each takes ``inputs`` inputs and computes next to nothing."""
    return Subject(
        "tiny", "operator", lambda: (_Function(lambda *x: sum(x) + 1), _random(*[(1,)] * inputs)), inputs, count
    )


def heavy_subjects() -> list[Subject]:
    """The kernels of the models as captured: products and attentions, and of the many convolutions so many, evenly over
    their sizes, that they are :data:`HEAVY` in all."""
    missing: Missing = {}
    for make in _SOURCES:
        captured_program(task_of(captured(make)), Pricing(frozen=True), missing)
    found = missing | {kernel.key: kernel for kernel in _OTHERS}
    kernels = sorted(found.values(), key=lambda kernel: (kernel.flops, kernel.key))
    others = [kernel for kernel in kernels if kernel.kind != "conv"]
    convolutions = [kernel for kernel in kernels if kernel.kind == "conv"]
    count = min(HEAVY - len(others), len(convolutions))
    chosen = [convolutions[i * len(convolutions) // count] for i in range(count)]
    return [heavy_subject(kernel) for kernel in (*others, *chosen)]


def heavy_subject(kernel: Kernel) -> Subject:
    """A subject that calls this kernel as a model would."""
    first, second, *_ = kernel.shapes
    shapes = kernel.shapes if kernel.kind == "sdpa" else (first, second)
    if kernel.kind == "conv":
        rest = (None, kernel.stride, kernel.padding, kernel.dilation, kernel.groups)
        convolution = (functional.conv1d, functional.conv2d, functional.conv3d)[len(first) - 3]
        return _weighted(kernel, first, second, lambda x, weight: convolution(x, weight, *rest))
    if kernel.kind == "matmul" and (kernel.weight or kernel.turned):
        return _weighted(kernel, first, second[::-1], lambda x, weight: x @ weight.t())
    if kernel.kind == "matmul":
        return Subject(kernel.key, "heavy", lambda: (_Function(torch.matmul), _random(*shapes)), 2)
    if kernel.kind == "sdpa":
        return Subject(kernel.key, "heavy", lambda: (_Function(_attention(kernel.causal)), _heads(shapes)), 3)
    raise ValueError(f"no model that is measured here has a kernel like {kernel.key}")


def _weighted(kernel: Kernel, image: Sequence[int], window: Sequence[int], function: Callable[..., Any]) -> Subject:
    def make() -> Built:
        (x,) = _random(image)
        # Between convolutions of two axes images lie with their channels last.
        return _Function(function, *_random(window)), (
            x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x,
        )

    return Subject(kernel.key, "heavy", make, 1)


def _attention(causal: bool) -> Callable[..., Any]:
    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    return attention


def _heads(shapes: Sequence[Sequence[int]]) -> tuple[Tensor, ...]:
    return tuple(torch.randn(b, rows, h, d).transpose(1, 2) for b, h, rows, d in shapes)


def _random(*shapes: Sequence[int]) -> tuple[Tensor, ...]:
    return tuple(torch.randn(tuple(shape)) for shape in shapes)


def _image(channels: int, size: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: _random((1, channels, size, size))


def _numbers(*shapes: Sequence[int]) -> Callable[[], tuple[Tensor, ...]]:
    """Positive numbers: every function is defined of them, and none is slow for the sake of a NaN."""
    return lambda: tuple(x.abs() + 0.1 for x in _random(*shapes))


def _subject(name: str, kind: str, function: Callable[..., Any], inputs: Callable[[], tuple[Tensor, ...]]) -> Subject:
    examples = inputs()
    count = WARM_BYTES // sum(x.numel() * x.element_size() for x in examples)
    return Subject(name, kind, lambda: (_Function(function), inputs()), len(examples), min(max(count, 1), COPIES))


def fusible_subjects() -> list[Subject]:
    """Pointwise operators of each class and of many sizes, reductions, copies, and groups of them."""
    return [*_pointwise(), *_moving(), *_groups()]


def _pointwise() -> list[Subject]:
    binary = [("add", torch.add, 16), ("add", torch.add, 20), ("mul", torch.mul, 13), ("div", torch.div, 17)]
    unary = [
        ("relu", torch.relu, 22),
        ("sqrt", torch.sqrt, 17),
        ("exp", torch.exp, 16),
        ("sigmoid", torch.sigmoid, 18),
        ("erf", torch.erf, 14),
        ("tanh", torch.tanh, 14),
        ("pow", lambda x: x**2.5, 14),
    ]
    return [
        *(_subject(f"{n} 2^{p}", "operator", f, _numbers((2**p,), (2**p,))) for n, f, p in binary),
        *(_subject(f"{n} 2^{p}", "operator", f, _numbers((2**p,))) for n, f, p in unary),
    ]


def _moving() -> list[Subject]:
    square, tokens = (1024, 512), (1, 128, 12, 64)
    return [
        _subject("sum of rows 1024x512", "operator", lambda x: x.sum(1), _numbers(square)),
        _subject("sum of columns 1024x512", "operator", lambda x: x.sum(0), _numbers(square)),
        _subject("maximum of rows 128x768", "operator", lambda x: x.amax(1), _numbers((128, 768))),
        _subject("cat 2 of 256x512", "operator", lambda x, y: torch.cat([x, y], 1), _numbers((256, 512), (256, 512))),
        _subject("pad 64x56x56", "operator", lambda x: functional.pad(x, (1, 1, 1, 1)), _image(64, 56)),
        _subject("permuted copy 128x12x64", "operator", lambda x: x.transpose(1, 2).reshape(12, -1), _numbers(tokens)),
        _subject("gather 512 of 256", "operator", lambda i, table: functional.embedding(i, table), _rows),
        _subject("average pool 64x56x56", "operator", lambda x: functional.avg_pool2d(x, 3, 1, 1), _image(64, 56)),
        _subject("maximum pool 64x56x56", "operator", lambda x: functional.max_pool2d(x, 3, 2, 1), _image(64, 56)),
    ]


def _rows() -> tuple[Tensor, ...]:
    return torch.randint(5000, (512,)), *_random((5000, 256))


def _groups() -> list[Subject]:
    def norm(x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:])

    return [
        _subject("softmax 1536x128", "group", lambda x: (x * 0.125).softmax(-1), _numbers((1536, 128))),
        _subject("residual and norm 128x768", "group", lambda x, y: norm(x + y), _numbers((128, 768), (128, 768))),
        _subject("gelu 128x3072", "group", functional.gelu, _numbers((128, 3072))),
        _subject("tanh gelu 16x768", "group", lambda x: functional.gelu(x, approximate="tanh"), _numbers((16, 768))),
        _subject("gate 128x2048", "group", lambda x, y: functional.silu(x) * y, _numbers((128, 2048), (128, 2048))),
        _subject("scale and relu 2^20", "group", lambda x: (x * 1.5 + 0.1 - x.abs()).relu(), _numbers((2**20,))),
        _subject("LSTM gates 512", "group", _cell, _numbers(*[(1, 512)] * 5)),
    ]


def _cell(i: Tensor, f: Tensor, g: Tensor, o: Tensor, c: Tensor) -> Tensor:
    return o.sigmoid() * (f.sigmoid() * c + i.sigmoid() * g.tanh()).tanh()
