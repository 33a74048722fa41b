"""What is predicted to be saved at other batch sizes and in half precision: ``python -m bench.reach``.

Small models are planned in deterministic mode, at estimated prices; nothing is timed. Each row says what share of the
predicted time a rewrite saves, and how far the rewritten and the eager model are from a run in double precision.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from torch_eqsat.report import last_reports

WIDTH, LENGTH, CLASSES, CHANNELS, PIXELS = 256, 64, 4000, 32, 28
OPTIONS = {"eqsat.deterministic": True, "eqsat.seconds": 4.0, "eqsat.cache": False, "eqsat.strict": True}


class Reading(nn.Module):
    """Layers, and a function of them and of a sequence."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.wide = (nn.Linear(WIDTH, n) for n in (WIDTH, WIDTH, 4 * WIDTH))
        self.narrow, self.head = nn.Linear(4 * WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.down, self.up = nn.Linear(WIDTH, 16, bias=False), nn.Linear(16, WIDTH, bias=False)
        self.layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True)
        self.norm, self.function = nn.LayerNorm(WIDTH), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Branches(nn.Module):
    """A block of RepVGG in training form."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        self.narrow = nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False)
        self.norms = nn.ModuleList(_norm(CHANNELS) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.norms
        return functional.relu(a(self.wide(x)) + b(self.narrow(x)) + c(x))


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    for values, low, high in ((norm.running_mean, -0.3, 0.3), (norm.running_var, 0.5, 2.0), (norm.weight, 0.5, 2.0)):
        assert values is not None
        nn.init.uniform_(values, low, high)
    return norm


def _attention(m: Any, x: Tensor, causal: bool) -> Tensor:
    mask = nn.Transformer.generate_square_subsequent_mask(LENGTH, dtype=x.dtype) if causal else None
    out: Tensor = m.layer(x, src_mask=mask, is_causal=causal)
    return out


SEQUENCES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "logits of the last token": lambda m, x: m.head(x)[:, -1],
    "the same behind a norm and a layer": lambda m, x: m.head(m.norm(functional.relu(m.first(x)) + x))[:, -1],
    "last token of a decoder layer": lambda m, x: m.head(_attention(m, x, True))[:, -1],
    "first token of an encoder layer": lambda m, x: m.first(_attention(m, x, False)[:, 0]),
    "some tokens by index": lambda m, x: m.head(functional.relu(m.first(x)))[:, torch.tensor([3, 7])],
    "one token of each sample": lambda m, x: m.head(m.first(x))[torch.arange(len(x)), torch.arange(len(x)) % LENGTH],
    "mean of a linear layer": lambda m, x: m.head(x).mean(1),
    "two linear layers": lambda m, x: m.narrow(m.wide(x)),
    "an adapter of rank 16": lambda m, x: m.first(x) + 2.0 * m.up(m.down(x)),
}
IMAGES: dict[str, Callable[[], nn.Module]] = {
    "two blocks of RepVGG": lambda: nn.Sequential(Branches(), Branches()),
    "1x1 convolution, norm, convolution": lambda: nn.Sequential(
        nn.Conv2d(CHANNELS, 64, 1, bias=False), _norm(64), nn.Conv2d(64, CHANNELS, 1)
    ),
}


@dataclass(frozen=True)
class Row:
    """The predicted saving of one model, and the distances of ours and of eager from a run in double precision."""

    name: str
    batch: int
    dtype: str
    frozen: bool
    saving: float
    ours: float
    eager: float

    def __str__(self) -> str:
        weights = "frozen" if self.frozen else "live"
        return (
            f"| {self.name} | {self.batch} | {self.dtype} | {weights} | {self.saving:.0%} "
            f"| {self.ours:.1e} | {self.eager:.1e} |"
        )


def measured(name: str, batch: int, dtype: str, *, frozen: bool) -> Row:
    """The row of one model."""
    torch.manual_seed(0)
    torch.compiler.reset()
    torch.backends.mha.set_fastpath_enabled(False)  # one operator for a whole layer, which nothing passes
    made = IMAGES[name]() if name in IMAGES else Reading(SEQUENCES[name])
    shape = (batch, CHANNELS, PIXELS, PIXELS) if name in IMAGES else (batch, LENGTH, WIDTH)
    model, x = made.eval().to(getattr(torch, dtype)), torch.randn(shape).to(getattr(torch, dtype))
    compiled = torch.compile(model, backend="eqsat_mcts_eager", options={**OPTIONS, "freezing": frozen}, dynamic=False)
    with torch.no_grad():
        exact = copy.deepcopy(model).double()(x.double())
        ours, eager = (float((y.double() - exact).norm() / exact.norm()) for y in (compiled(x), model(x)))
    (report,) = last_reports()
    saving = 1 - report.best_ms / report.base_ms if report.changed else 0.0
    return Row(name, batch, dtype, frozen, saving, ours, eager)


def rows(names: Sequence[str], batches: Sequence[int], dtypes: Sequence[str]) -> Iterator[Row]:
    """All rows, frozen and live; live ones at the smallest batch above one alone."""
    for name in names:
        for dtype in dtypes:
            for batch in batches:
                yield measured(name, batch, dtype, frozen=True)
            yield measured(name, min([b for b in batches if b > 1] or batches), dtype, frozen=False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.reach", description=__doc__)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 2, 8, 64])
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--only", help="models whose name contains this")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | batch | dtype | weights | predicted saving | distance, ours | distance, eager |")
    print("|---|---:|---|---|---:|---:|---:|")
    for row in rows([n for n in (*SEQUENCES, *IMAGES) if (given.only or "") in n], given.batches, given.dtypes):
        print(row, flush=True)


if __name__ == "__main__":
    main()
