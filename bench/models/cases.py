"""The models that the benchmark times, with the ratio that each has to reach.

Every case is float32 and batch 1, with weights and inputs from one fixed seed; nothing is downloaded. Batch norms get
random running statistics, scales and shifts: with the values they are born with (0, 1, 1, 0) a wrong fold would pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

SEED = 0
Built = tuple[nn.Module, tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True)
class Case:
    """A model and its inputs. ``threshold`` is the least speedup over the better of Inductor default and frozen.
    A model for ``training`` returns its loss."""

    name: str
    threshold: float
    description: str
    make: Callable[[], Built]
    training: bool = False

    def build(self) -> Built:
        """The module in eval mode, or in training mode, and its inputs, the same ones in every process."""
        torch.manual_seed(SEED)
        module, inputs = self.make()
        return module.train(self.training), inputs


def named(names: Iterable[str] = ()) -> list[Case]:
    """The cases of these names, in the order of the table; all of them for no name.

    Raises ValueError for an unknown name.
    """
    wanted = set(names)
    if unknown := wanted - CASES.keys():
        raise ValueError(f"unknown case {', '.join(sorted(unknown))}; the cases are {', '.join(CASES)}")
    return [case for case in CASES.values() if not wanted or case.name in wanted]


def randomize_batch_norms(module: nn.Module, inputs: tuple[Tensor, ...]) -> Built:
    """``module`` with random scales and shifts, and running statistics scattered around those of ``inputs``.

    Around real statistics, since activations of a deep model would grow without bound with made-up ones; against
    a 10¹⁶ the shifts are lost in rounding, and a wrong one would pass.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
        norm.momentum = None
    with torch.no_grad():
        module.train()(*inputs)
    for norm in norms:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean += 0.1 * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.5, 1.5)
    return module, inputs


def _image() -> tuple[Tensor, ...]:
    return (torch.randn(1, 3, 224, 224),)


def _tokens(vocabulary: int, length: int = 128) -> tuple[Tensor, ...]:
    return (torch.randint(vocabulary, (1, length)),)


def _timm(name: str) -> Callable[[], Built]:
    def make() -> Built:
        import timm

        return randomize_batch_norms(timm.create_model(name, pretrained=False), _image())

    return make


def torchvision_model(name: str) -> Callable[[], Built]:
    """What makes a model of torchvision."""

    def make() -> Built:
        import torchvision

        return randomize_batch_norms(torchvision.models.get_model(name, weights=None), _image())

    return make


class LinearAttention(nn.Module):
    """Attention without softmax."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(q kᵀ · 0.125) v"""
        return (q @ k.transpose(-2, -1) * 0.125) @ v


def _linear_attention() -> Built:
    q, k, v = (torch.randn(1, 8, 1024, 64) for _ in range(3))
    return LinearAttention(), (q, k, v)


def _two_linears(width: int, inner: int, rows: int) -> Built:
    return nn.Sequential(nn.Linear(width, inner), nn.Linear(inner, width)), (torch.randn(rows, width),)


class Recurrence(nn.Module):
    """An LSTM cell in a Python loop over the steps of a sequence."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The last hidden state for a sequence [batch, steps, width]."""
        h = c = x.new_zeros(x.shape[0], self.cell.hidden_size)
        for step in range(x.shape[1]):
            h, c = self.cell(x[:, step], (h, c))
        return h


def _recurrence() -> Built:
    return Recurrence(512), (torch.randn(1, 16, 512),)


def _convolution_after_upsample() -> Built:
    module = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(256, 128, 1))
    return module, (torch.randn(1, 256, 32, 32),)


class Outputs(nn.Module):
    """A transformers model, of which the caller reads what ``read`` takes out of its answer."""

    def __init__(self, model: nn.Module, read: Callable[[Any], Any]) -> None:
        super().__init__()
        self.model = model
        self.read = read

    def forward(self, tokens: Tensor) -> Any:
        """What is read for tokens [batch, length]."""
        return self.read(self.model(tokens))


def _bert_classifier() -> Built:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(hidden_size=312, num_hidden_layers=4, num_attention_heads=12, intermediate_size=1200)
    return Outputs(BertForSequenceClassification(config), lambda answer: answer.logits), _tokens(config.vocab_size)


def _bert_base() -> Built:
    from transformers import BertConfig, BertModel

    config = BertConfig()
    return Outputs(BertModel(config), lambda answer: answer.last_hidden_state), _tokens(config.vocab_size)


def _language_model() -> Built:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=6, use_cache=False)
    return Outputs(GPT2LMHeadModel(config), lambda answer: answer.logits[:, -1]), _tokens(config.vocab_size)


_ALL = (
    Case("mobileone_s0", 3.5, "timm mobileone_s0 in training form", _timm("mobileone_s0")),
    Case("repvgg_a0", 1.10, "timm repvgg_a0 in training form", _timm("repvgg_a0")),
    Case("linear_attention", 15.0, "attention without softmax, 8 heads, n=1024, d=64", _linear_attention),
    Case("linear_768_3072_768", 6.0, "two linear maps, M=256, better folded", lambda: _two_linears(768, 3072, 256)),
    Case("linear_768_64_768", 0.98, "two linear maps, M=256, better left alone", lambda: _two_linears(768, 64, 256)),
    Case("lstm_loop", 1.5, "LSTMCell in a loop, 16 steps, 512 wide", _recurrence),
    Case("conv_after_upsample", 3.0, "1x1 convolution after 2x nearest upsampling", _convolution_after_upsample),
    Case("densenet121", 1.05, "torchvision DenseNet-121", torchvision_model("densenet121")),
    Case("bert_classifier", 1.15, "BERT classifier, 4 layers, 312 wide, 128 tokens", _bert_classifier),
    Case("causal_lm", 1.7, "causal LM of distilgpt2's shape, logits[:, -1], 128 tokens", _language_model),
    Case("resnet50", 0.98, "torchvision ResNet-50, nothing to win", torchvision_model("resnet50")),
    Case("bert_base", 0.98, "BERT-base, 128 tokens, nothing to win", _bert_base),
)

CASES = {case.name: case for case in _ALL}
"""The cases by name, in the order of the table."""
