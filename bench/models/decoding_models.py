"""One step of decoding with a static cache: language models of transformers with live weights, by their sizes.

A name such as ``decode-llama-512x4-b1`` is a whole model: its family, width, layers and batch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.models.cases import Built, Case

VOCABULARY, LENGTH, POSITION, HEAD = 32_000, 128, 64, 64
FAMILIES = ("llama", "gpt2", "qwen")
_NAME = re.compile(rf"decode-({'|'.join(FAMILIES)})-(\d+)x(\d+)-b(\d+)")


def decoding_names() -> list[str]:
    """The steps that are timed by default."""
    shapes = ("256x4", "512x6", "1024x8")
    return [f"decode-{family}-{shape}-b{batch}" for family in FAMILIES for shape in shapes for batch in (1, 4)]


def decoding_case(name: str) -> Case | None:
    """The case of a name, or None for a name of another kind."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    family, (width, layers, batch) = match[1], map(int, match.groups()[1:])
    return Case(name, 0.98, "a step of decoding", lambda: _built(family, width, layers, batch))


def _built(family: str, width: int, layers: int, batch: int) -> Built:
    return Step(_MAKERS[family](width, layers).eval(), batch), (torch.randint(VOCABULARY, (batch, 1)),)


class Step(nn.Module):
    """A model and its cache, filled up to :data:`POSITION`; each call is the step at that position."""

    def __init__(self, model: Any, batch: int) -> None:
        super().__init__()
        from transformers import StaticCache

        self.model = model
        self.cache: Any = StaticCache(model.config, max_cache_len=LENGTH)
        with torch.no_grad():
            model(torch.randint(VOCABULARY, (batch, POSITION)), past_key_values=self.cache)

    def forward(self, tokens: Tensor) -> Tensor:
        """The logits of the token after ``tokens`` [batch, 1]."""
        _go_back(self.cache)
        logits: Tensor = self.model(tokens, past_key_values=self.cache).logits
        return logits

    def _apply(self, change: Callable[[Tensor], Tensor], recurse: bool = True) -> Step:
        for layer in self.cache.layers:
            layer.keys, layer.values = change(layer.keys), change(layer.values)
            layer.dtype = layer.keys.dtype
        super()._apply(change, recurse)
        return self


def _back(cache: Any) -> None:
    """Go back to :data:`POSITION`."""
    for layer in cache.layers:
        layer.cumulative_length.fill_(POSITION)


_go_back = torch.compiler.disable(_back)  # no part of the step


def _llama(width: int, layers: int) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_sizes(width, layers)))


def _qwen(width: int, layers: int) -> nn.Module:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**_sizes(width, layers)))


def _gpt2(width: int, layers: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_embd=width, n_layer=layers, n_head=width // HEAD, vocab_size=VOCABULARY)
    return GPT2LMHeadModel(config)


def _sizes(width: int, layers: int) -> dict[str, Any]:
    heads = width // HEAD
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": 11 * width // 4,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 2),
    }


_MAKERS = {"llama": _llama, "gpt2": _gpt2, "qwen": _qwen}
