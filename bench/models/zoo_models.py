"""Models of the zoo: the smallest of each timm family, and transformers' architectures with random weights.

As cases for timing their names are zoo-SOURCE:NAME-WAY, where the ways are those of drawn models.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.models.cases import Built, Case
from bench.models.drawn_models import WAYS, in_way

_NAME = re.compile(rf"zoo-((?:timm|transformers):[\w./-]+)-({'|'.join(WAYS)})")
SMALL = ("test", "atto", "femto", "pico", "nano", "zepto", "xxs", "xx", "xs", "tiny", "mini", "small", "_s", "b0", "18")
# Small configurations of transformers: whatever of these a configuration has is set.
TINY = {
    "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "embed_dim": 32, "embedding_size": 32,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2, "encoder_layers": 2, "decoder_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "num_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "intermediate_size": 64, "n_inner": 64, "d_ff": 64, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "hidden_dim": 64,
    "ffn_dim": 64, "d_kv": 8, "vocab_size": 128, "max_position_embeddings": 64, "n_positions": 64, "type_vocab_size": 2,
    "image_size": 32, "patch_size": 8, "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "num_dense_layers": 1, "pad_token_id": 0, "word_embed_proj_dim": 32, "rotary_dim": 8,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
TOKENS, IMAGE = 12, 64
# Of the size of small models in use.
_WIDTHS = ("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "embedding_size", "word_embed_proj_dim")
_INNER = ("intermediate_size", "n_inner", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim", "hidden_dim")
USUAL = TINY | dict.fromkeys(_WIDTHS, 256) | dict.fromkeys((*_INNER, "moe_intermediate_size"), 1024) | {
    "head_dim": 64, "d_kv": 64, "vocab_size": 8192, "max_position_embeddings": 512, "n_positions": 512,
    "rotary_dim": 32, "image_size": 224, "patch_size": 16,
}  # fmt: skip
USUAL_TOKENS, USUAL_IMAGE = 128, 224
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def names() -> list[str]:
    """A model of each family of timm, and each architecture of transformers that takes tokens or images alone."""
    import timm
    from transformers.models.auto import modeling_auto

    families: dict[str, list[str]] = {}
    for name in timm.list_models():
        families.setdefault(re.split(r"\d|_", name)[0], []).append(name)
    ranked = [f"timm:{min(members, key=_size_rank)}" for members in families.values()]
    causal, masked = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    images = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    kinds = {**dict.fromkeys(images, "images"), **dict.fromkeys((*causal, *masked), "tokens")}
    return [*ranked, *(f"transformers:{kind}/{name}" for name, kind in sorted(kinds.items()))]


def _size_rank(name: str) -> tuple[int, int, str]:
    return next((i for i, mark in enumerate(SMALL) if mark in name), len(SMALL)), len(name), name


def make(
    model: str, sizes: Mapping[str, int] = TINY, tokens: int = TOKENS, image: int = IMAGE
) -> tuple[nn.Module, Tensor]:
    """A model with random weights and its input: of a transformer of these sizes, of so many tokens, or an image of so
    many pixels square where the model takes any."""
    source, _, name = model.partition(":")
    torch.manual_seed(0)
    if source == "timm":
        import timm

        made = timm.create_model(name, pretrained=False)
        size = made.pretrained_cfg["input_size"][1:] if made.pretrained_cfg.get("fixed_input_size") else (image, image)
        return made, torch.randn(1, 3, *size)
    kind, _, name = name.partition("/")
    return _transformer(name, kind, sizes, tokens)


def _transformer(name: str, kind: str, sizes: Mapping[str, int], tokens: int) -> tuple[nn.Module, Tensor]:
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto

    config = AutoConfig.for_model(name)
    for part in (config, getattr(config, "text_config", None), getattr(config, "vision_config", None)):
        for key, value in sizes.items():
            if part is not None and isinstance(getattr(part, key, None), int):
                setattr(part, key, value)
    config.use_cache = False
    tables = ("CAUSAL_LM", "MASKED_LM") if kind == "tokens" else ("IMAGE_CLASSIFICATION",)
    classes = [getattr(modeling_auto, f"MODEL_FOR_{t}_MAPPING_NAMES").get(name) for t in tables]
    chosen = next(c for c in classes if c)
    chosen = chosen if isinstance(chosen, str) else chosen[0]
    made = getattr(importlib.import_module("transformers"), chosen)(config)
    size = getattr(config, "image_size", 64)
    size = size if isinstance(size, int) else size[0]
    x = torch.randint(3, 100, (1, tokens)) if kind == "tokens" else torch.randn(1, 3, size, size)
    return _Logits(made), x


class _Logits(nn.Module):
    """A transformer as a function of one tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        """The logits alone: caches and other outputs are not compared."""
        return self.model(x, return_dict=True).logits


def zoo_case(name: str) -> Case | None:
    """The case of a name, or None for a name of another kind."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    model, way = found.groups()
    return Case(name, 0.98, "a model of the zoo", partial(_built, model, way), way == "training")


def _built(model: str, way: str) -> Built:
    made, x = make(model, USUAL, USUAL_TOKENS, USUAL_IMAGE)
    without_dropout(made)
    return in_way(made, (samples(x) if way == "training" else x,), way)


def without_dropout(model: nn.Module) -> None:
    """Set all probabilities of dropout to 0: random numbers would differ."""
    for module in model.modules():
        for holder in (module, getattr(module, "config", None)):
            for key, value in list(vars(holder).items()) if holder is not None else ():
                if isinstance(value, float) and ("drop" in key or (key == "p" and isinstance(module, _DROPOUTS))):
                    setattr(holder, key, 0.0)


def samples(x: Tensor) -> Tensor:
    """Two images in place of one: a norm over a batch of one pixel needs two. Tokens unchanged."""
    return torch.cat([x, x.flip(-1)]) if x.is_floating_point() else x
