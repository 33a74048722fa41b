"""Networks of the suite that no library builds in the size that is wanted."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.models.cases import Outputs

Built = tuple[nn.Module, tuple[Tensor, ...]]


class LoraLinear(nn.Module):
    """A linear layer with an adapter of low rank that is not merged into it."""

    def __init__(self, base: nn.Linear, rank: int = 16) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """W x + b + 2 B A x"""
        output: Tensor = self.base(x) + 2.0 * self.up(self.down(x))
        return output


def with_adapters(module: nn.Module) -> nn.Module:
    """``module`` with an adapter on every linear layer."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, LoraLinear(child))
    return module


def lora_bert() -> Built:
    """BERT-base's width, 2 layers, adapters on all linear layers, 128 tokens."""
    from transformers import BertConfig, BertModel

    config = BertConfig(num_hidden_layers=2)
    module = with_adapters(BertModel(config, add_pooling_layer=False))
    return Outputs(module, lambda answer: answer.last_hidden_state), (torch.randint(config.vocab_size, (1, 128)),)


def pythia() -> Built:
    """Pythia-70m's shape, logits of the last of 128 positions."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=50304, hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=2048,
        use_cache=False,
    )  # fmt: skip
    module = Outputs(GPTNeoXForCausalLM(config), lambda answer: answer.logits[:, -1])
    return module, (torch.randint(config.vocab_size, (1, 128)),)


def smollm() -> Built:
    """SmolLM-135M's shape, 8 of its 30 layers, logits of the last of 128 positions."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, num_hidden_layers=8, num_attention_heads=9, num_key_value_heads=3,
        intermediate_size=1536, use_cache=False,
    )  # fmt: skip
    module = Outputs(LlamaForCausalLM(config), lambda answer: answer.logits[:, -1])
    return module, (torch.randint(config.vocab_size, (1, 128)),)


class Recommender(nn.Module):
    """DLRM's sparse part: 26 tables, and the products of their rows. ``bags`` sums ten rows of each table."""

    def __init__(self, bags: bool) -> None:
        super().__init__()
        self.tables = nn.ModuleList(
            nn.EmbeddingBag(1000, 64, mode="sum") if bags else nn.Embedding(1000, 64) for _ in range(26)
        )

    def forward(self, indices: Tensor) -> Tensor:
        """The products [batch, 26, 26] for indices [26, batch] or [26, batch, 10]."""
        rows = torch.stack([table(indices[i]) for i, table in enumerate(self.tables)], 1)
        return rows @ rows.transpose(1, 2)


def recommender(bags: bool) -> Built:
    """Batch 1."""
    return Recommender(bags), (torch.randint(1000, (26, 1, 10) if bags else (26, 1)),)


class Mmoe(nn.Module):
    """Multi-gate mixture of experts: all experts compute, each task weighs them by its own gate."""

    def __init__(self, width: int = 128, experts: int = 8, tasks: int = 2) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU()) for _ in range(experts)
        )
        self.gates = nn.ModuleList(nn.Linear(width, experts) for _ in range(tasks))
        self.towers = nn.ModuleList(nn.Linear(64, 1) for _ in range(tasks))

    def forward(self, x: Tensor) -> Tensor:
        """A score a task, for x [batch, width]."""
        values = torch.stack([expert(x) for expert in self.experts], 1)
        mixed = [(gate(x).softmax(1).unsqueeze(2) * values).sum(1) for gate in self.gates]
        return torch.cat([tower(m) for tower, m in zip(self.towers, mixed, strict=True)], 1)


class _ResidualUnit(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.second(self.first(x.relu()).relu()) + x
        return output


class DptFusion(nn.Module):
    """The fusion layer of a dense prediction transformer: residual units, upsampling, a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _ResidualUnit(channels)
        self.second = _ResidualUnit(channels)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """The fused features at twice the height and width."""
        x = self.second(x + self.first(skip))
        x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        output: Tensor = self.project(x)
        return output


class _VaeBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(8, inputs), nn.GroupNorm(8, outputs)])
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(functional.silu(self.norms[0](x)))
        output: Tensor = self.second(functional.silu(self.norms[1](h))) + self.shortcut(x)
        return output


class VaeDecoder(nn.Sequential):
    """The decoder of Stable Diffusion's autoencoder at a quarter of its width, without its one attention layer."""

    def __init__(self, widths: tuple[int, ...] = (128, 128, 64, 32)) -> None:
        layers: list[nn.Module] = [nn.Conv2d(4, widths[0], 3, padding=1), _VaeBlock(widths[0], widths[0])]
        before = widths[0]
        for level, width in enumerate(widths):
            layers += [_VaeBlock(before, width), _VaeBlock(width, width), _VaeBlock(width, width)]
            if level < len(widths) - 1:
                layers += [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(width, width, 3, padding=1)]
            before = width
        super().__init__(*layers, nn.GroupNorm(8, before), nn.SiLU(), nn.Conv2d(before, 3, 3, padding=1))
