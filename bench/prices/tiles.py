"""What the kernels for Winograd's sums save: ``python -m bench.prices.tiles`` on an idle machine, about a minute.

A model of a 1x1, a 3x3 and a 1x1 convolution is compiled three times in one process: by Inductor with freezing, by
eqsat_mcts with Inductor's loops for the sums, and with the kernels. All are timed in turn, with their guards.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._inductor import config

from torch_eqsat.kernels import tiles
from torch_eqsat.planning.inductor import compiling

SIZES = ((64, 56), (128, 28), (256, 14))
"""Channels, and the height and width of the image: the blocks of a ResNet."""

ROUNDS = 200


@contextlib.contextmanager
def _freezing() -> Iterator[dict[str, Any]]:
    with config.patch(freezing=True):
        yield {"backend": "inductor"}


@contextlib.contextmanager
def _loops() -> Iterator[dict[str, Any]]:
    with mock.patch.object(compiling, "use_kernels", lambda graph: None), config.patch(fx_graph_cache=False):
        yield {"backend": "eqsat_mcts", "options": {"freezing": True}}


@contextlib.contextmanager
def _kernels() -> Iterator[dict[str, Any]]:
    with config.patch(fx_graph_cache=False):
        yield {"backend": "eqsat_mcts", "options": {"freezing": True}}


VARIANTS = {"freezing": _freezing, "loops": _loops, "kernels": _kernels}


def model(channels: int) -> nn.Module:
    """Three convolutions, each with its batch norm and relu."""
    layers: list[nn.Module] = []
    for window in (1, 3, 1):
        convolution = nn.Conv2d(channels, channels, window, padding=window // 2, bias=False)
        layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers).eval()


def compiled(variant: str, channels: int, image: torch.Tensor) -> Callable[[], object]:
    """A call of a model of its own, after the first one."""
    module = model(channels)
    with VARIANTS[variant]() as how, mock.patch.object(tiles, "prepare", wraps=tiles.prepare) as prepared:
        run = torch.compile(module, **how)
        run(image)
    if (variant == "kernels") != prepared.called:
        print(f"{channels} channels, {variant}: {'kernels' if prepared.called else 'no kernels'} in the program")
    return lambda: run(image)


def main() -> int:
    """Print a row for each size."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    print(" | ".join(("channels, image", *(f"{name}, ms (median)" for name in VARIANTS))))
    with torch.no_grad():
        for channels, size in SIZES:
            torch.compiler.reset()
            image = torch.randn(1, channels, size, size)
            calls = {name: compiled(name, channels, image) for name in VARIANTS}
            samples: dict[str, list[float]] = {name: [] for name in calls}
            for turn in range(ROUNDS):
                for name in list(calls)[:: 1 if turn % 2 else -1]:  # who follows whom decides what is in the cache
                    start = time.perf_counter()
                    calls[name]()
                    samples[name].append((time.perf_counter() - start) * 1e3)
            cells = (f"{min(taken):.3f} ({statistics.median(taken):.3f})" for taken in samples.values())
            print(" | ".join((f"{channels}, {size}x{size}", *cells)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
