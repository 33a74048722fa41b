"""One model of the zoo, run in a process of its own: see bench/trust/zoo.py."""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bench.trust.in_process import brief, searching_here
from torch_eqsat import report as reports
from torch_eqsat.verification.guard import difference

OPTIONS = {
    "eqsat.deterministic": True,
    "eqsat.min_saving": 0.0,
    "eqsat.nodes": 2000,
    "eqsat.seconds": 1.0,
    "eqsat.simulations": 8,
    "eqsat.cache": False,
    "eqsat.strict": True,
}
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
TOKENS = 12
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


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


def make(model: str) -> tuple[nn.Module, Tensor]:
    """A model with random weights, and its input."""
    source, _, name = model.partition(":")
    torch.manual_seed(0)
    if source == "timm":
        import timm

        made = timm.create_model(name, pretrained=False)
        size = made.pretrained_cfg["input_size"][1:] if made.pretrained_cfg.get("fixed_input_size") else (64, 64)
        return made, torch.randn(1, 3, *size)
    kind, _, name = name.partition("/")
    return _transformer(name, kind)


def _transformer(name: str, kind: str) -> tuple[nn.Module, Tensor]:
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto

    config = AutoConfig.for_model(name)
    for part in (config, getattr(config, "text_config", None), getattr(config, "vision_config", None)):
        for key, value in TINY.items():
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
    x = torch.randint(3, 100, (1, TOKENS)) if kind == "tokens" else torch.randn(1, 3, size, size)
    return _Logits(made), x


class _Logits(nn.Module):
    """A transformer as a function of one tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        """The logits alone: caches and other outputs are not compared."""
        return self.model(x, return_dict=True).logits


def compute(model: nn.Module, function: Callable[..., Any], x: Tensor, training: bool) -> list[Any]:
    """Results, in training the gradients of all parameters, and the buffers that were written, which are set back."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        made = _results(model, function, x, training)
        return [*made, *(buffer.clone() for _, buffer in model.named_buffers())]
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])


def _results(model: nn.Module, function: Callable[..., Any], x: Tensor, training: bool) -> list[Any]:
    torch.manual_seed(0)
    model.train(training)
    if not training:
        with torch.no_grad():
            return list(tree_leaves(function(x)))
    if x.is_floating_point():
        x = torch.cat([x, x.flip(-1)])  # a norm over a batch of one pixel needs two samples
    results = [y for y in tree_leaves(function(x)) if isinstance(y, Tensor)]
    parameters = [p for p in model.parameters() if p.requires_grad]
    loss = sum((y.float().square().mean() for y in results if y.is_floating_point()), torch.zeros(()))
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [*(y.detach() for y in results), *gradients]


@dataclass(frozen=True)
class Reference:
    """A model's results in eager, and by float64 (None where a kernel does not take it); with ``training`` also its
    gradients."""

    eager: list[Any]
    exact: list[Any]

    @staticmethod
    def of(model: nn.Module, x: Tensor, training: bool) -> Reference:
        """Runs the model twice."""
        eager = compute(model, model, x, training)
        wide = copy.deepcopy(model).double()
        try:
            exact = compute(wide, wide, x.double() if x.is_floating_point() else x, training)
        except RuntimeError:  # a kernel of one dtype, or a model that makes tensors of its own
            exact = [None] * len(eager)
        return Reference(eager, exact)

    def difference_of(self, actual: list[Any]) -> str:
        """What is wrong with the first of ``actual`` that is; "" if nothing is."""
        for number, (found, exact, own) in enumerate(zip(actual, self.exact, self.eager, strict=True)):
            if problem := difference(found, exact, own if own is not None else found):
                return f"output {number} {problem}"
        return ""


def rows(name: str, modes: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of one model, a mode each."""
    try:
        model, x = make(name)
        _without_dropout(model)
        references = {training: Reference.of(model, x, training) for training in {mode == "training" for mode in modes}}
    except Exception as error:
        yield from [{"outcome": "no model", "reason": brief(error), "seconds": 0.0}] * len(modes)
        return
    for mode in modes:
        torch.compiler.reset()
        start = time.monotonic()
        row = run(model, x, mode, references[mode == "training"])
        yield row | {"seconds": round(time.monotonic() - start, 1)}


def _without_dropout(model: nn.Module) -> None:
    """Set all probabilities of dropout to 0: random numbers would differ."""
    for module in model.modules():
        for holder in (module, getattr(module, "config", None)):
            for key, value in list(vars(holder).items()) if holder is not None else ():
                if isinstance(value, float) and ("drop" in key or (key == "p" and isinstance(module, DROPOUTS))):
                    setattr(holder, key, 0.0)


def run(model: nn.Module, x: Tensor, mode: str, reference: Reference) -> dict[str, Any]:
    """The row of one model in one mode."""
    training = mode == "training"
    options = {**OPTIONS, "freezing": mode == "frozen"}
    try:
        with searching_here(None):
            compiled = torch.compile(model, backend="eqsat_mcts_eager", options=options, dynamic=False)
            actual = compute(model, compiled, x, training)
    except Exception as error:
        reason = brief(error)
        if "MemoryError" in reason or "alloc" in reason:
            return {"outcome": "memory", "reason": reason}
        return {"outcome": "fault" if without_laws(model, x, training) else "no model", "reason": reason}
    made = reports.last_reports()
    facts = {
        "graphs": len(made),
        "rewritten": sum(report.changed for report in made),
        "decisions": [report.decision[:120] for report in made],
        "predicted_ms": [round(sum(r.base_ms for r in made), 4), round(sum(r.best_ms for r in made), 4)],
        "search_s": round(sum(report.search_seconds for report in made), 2),
        "laws": sorted({law for report in made if report.changed for law in report.laws}),
    }
    if problem := reference.difference_of(actual):
        torch.compiler.reset()
        alone = torch.compile(model, backend="aot_eager_decomp_partition", dynamic=False)
        torchs = bool(reference.difference_of(compute(model, alone, x, training)))
        return {"outcome": "wrong without us" if torchs else "wrong", "reason": problem, **facts}
    refused = [report.decision for report in made if "refused" in report.decision]
    return {"outcome": "refused" if refused else "ok", "reason": "; ".join(refused)[:300], **facts}


def without_laws(model: nn.Module, x: Tensor, training: bool) -> bool:
    """Whether the model compiles with torch's own backend that generates no code."""
    torch.compiler.reset()
    try:
        compute(model, torch.compile(model, backend="aot_eager_decomp_partition", dynamic=False), x, training)
    except Exception:
        return False
    return True


def main() -> None:
    """Print the rows as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.trust.zoo_models", description=__doc__)
    parser.add_argument("model", metavar="SOURCE:NAME")
    parser.add_argument("modes", nargs="+", metavar="MODE", help="those of bench.trust.zoo")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for row in rows(given.model, given.modes):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
