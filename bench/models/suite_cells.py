"""Cells of models as their users write them: in some an algebraic rewrite wins, in others the tempting one loses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Built = tuple[nn.Module, tuple[Tensor, ...]]


class Formula(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the function says."""
        return self.function(*inputs)


def formula(function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> Built:
    """A function of random inputs of these shapes."""
    return Formula(function), tuple(torch.randn(shape) for shape in shapes)


class GraphConvolution(nn.Module):
    """A layer of a graph convolutional network on a dense adjacency."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, outputs, bias=False)

    def forward(self, adjacency: Tensor, x: Tensor) -> Tensor:
        """relu(A (X W)) for an adjacency [n, n] and features [n, width]."""
        return (adjacency @ self.linear(x)).relu()


def graph_convolution() -> Built:
    """2048 nodes, 64 to 256 features."""
    return GraphConvolution(64, 256), (torch.rand(2048, 2048) / 2048, torch.randn(2048, 64))


class Interactions(nn.Module):
    """The pairwise part of a factorization machine."""

    def forward(self, vectors: Tensor) -> Tensor:
        """The sum over pairs i < j of their inner product, for vectors [batch, fields, width]."""
        products = vectors @ vectors.transpose(1, 2)
        return (products.sum((1, 2)) - products.diagonal(dim1=1, dim2=2).sum(1)) / 2


class TokenFeatures(nn.Module):
    """An embedding, projected."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5000, 128)
        self.linear = nn.Linear(128, 512)

    def forward(self, tokens: Tensor) -> Tensor:
        """Features [length, 512] of tokens [length]."""
        return self.linear(self.embedding(tokens))


class MeanOfLinear(nn.Module):
    """A projection, pooled over the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(768, 768)

    def forward(self, x: Tensor) -> Tensor:
        """The mean over the positions of x [batch, positions, 768], projected."""
        return self.linear(x).mean(1)


class OneHot(nn.Module):
    """A table read by one-hot vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(5000, 256))

    def forward(self, indices: Tensor) -> Tensor:
        """Rows [n, 256] for indices [n]."""
        return functional.one_hot(indices, 5000).to(self.table.dtype) @ self.table


class ConcatenatedLinear(nn.Module):
    """Four inputs through one linear layer, which is better left alone."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4 * 128, 128)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The layer on the inputs [n, 128] side by side."""
        return self.linear(torch.cat(inputs, 1))


class DenseTransition(nn.Module):
    """DenseNet's transition: a 1x1 convolution, then pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(256, 128, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Half the channels, height and width."""
        return functional.avg_pool2d(self.convolution(x), 2)


def resnext_block() -> Built:
    """A block of ResNeXt-50 32x4d: merging its groups loses."""
    from torchvision.models.resnet import Bottleneck

    return Bottleneck(256, 64, groups=32, base_width=4), (torch.randn(1, 256, 56, 56),)


def fire() -> Built:
    """SqueezeNet's fire module: enlarging its 1x1 kernels to merge the convolutions loses."""
    from torchvision.models.squeezenet import Fire

    return Fire(256, 48, 192, 192), (torch.randn(1, 256, 27, 27),)


class Gru(nn.Module):
    """A GRU cell in a Python loop over the steps of a sequence."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The last hidden state for a sequence [batch, steps, width]."""
        h = x.new_zeros(x.shape[0], self.cell.hidden_size)
        for step in range(x.shape[1]):
            h = self.cell(x[:, step], h)
        return h


class ShiftedWindows(nn.Module):
    """The mask of shifted windows, built anew on each call as torchvision's swin does, added to the scores."""

    def forward(self, scores: Tensor) -> Tensor:
        """The attention weights for scores [windows, heads, 49, 49] of an image of 56x56."""
        size, window, shift = 56, 7, 3
        image = scores.new_zeros((size, size))
        count = 0
        for rows in ((0, -window), (-window, -shift), (-shift, None)):
            for columns in ((0, -window), (-window, -shift), (-shift, None)):
                image[rows[0] : rows[1], columns[0] : columns[1]] = count
                count += 1
        tiles = image.view(size // window, window, size // window, window).permute(0, 2, 1, 3).reshape(-1, window**2)
        mask = tiles.unsqueeze(1) - tiles.unsqueeze(2)
        mask = mask.masked_fill(mask != 0, -100.0).masked_fill(mask == 0, 0.0)
        return (scores + mask.unsqueeze(1)).softmax(-1)


class RelativeAttention(nn.Module):
    """Attention with T5's bias: a table read at the bucket of each distance, computed on each call."""

    def __init__(self, heads: int = 8, width: int = 512) -> None:
        super().__init__()
        self.heads = heads
        self.projection = nn.Linear(width, 3 * width, bias=False)
        self.table = nn.Embedding(32, heads)

    def forward(self, x: Tensor) -> Tensor:
        """Attention among the positions of x [positions, width]."""
        n = x.shape[0]
        q, k, v = (t.view(n, self.heads, -1).transpose(0, 1) for t in self.projection(x).chunk(3, 1))
        positions = torch.arange(n)
        distance = positions[None] - positions[:, None]
        far = distance.abs()
        large = 8 + (torch.log(far.clamp(min=1).float() / 8) / 2.772588722 * 8).long()
        buckets = (distance > 0).long() * 16 + torch.where(far < 8, far, large.clamp(max=15))
        scores = q @ k.transpose(1, 2) + self.table(buckets).permute(2, 0, 1)
        return (scores.softmax(-1) @ v).transpose(0, 1).reshape(n, -1)
