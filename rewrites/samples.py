"""Sample terms for places of operators; the laws over traits are shown and tested on them."""

from __future__ import annotations

from dataclasses import dataclass

from torch_eqsat.laws.pattern import Place

BASES = {2: "[4, 6]", 3: "[2, 4, 6]", 4: "[2, 4, 6, 6]"}
"""An input tensor of each rank."""


@dataclass(frozen=True, slots=True)
class Sample:
    """An operator applied to a term named ``{v}`` of some rank, and to the ``others``, which are named before.

    ``axes`` are the axes that it acts on (None if axes do not correspond). ``ratio`` is the size of the result relative
    to the input of BASES.
    """

    place: Place
    rank: int
    axes: frozenset[int] | None
    ratio: float
    text: str
    others: tuple[str, ...] = ()

    def over(self, x: str, name: str) -> list[str]:
        """The preceding terms, ``x`` under that name among them, then the operator over it."""
        return [text.replace("{v}", name) for text in (f"{{v}} := {x}", *self.others, self.text)]


def _sample(op: str, arity: int, position: int, rank: int, axes: str, ratio: float, text: str, *others: str) -> Sample:
    acted = None if axes == "?" else frozenset(int(axis) for axis in axes)
    return Sample(Place(op, arity, position), rank, acted, ratio, f"{op}({text})", others)


SAMPLES = [
    _sample("slice", 1, 0, 2, "0", 1 / 4, "{v}, dim=0, start=1, stop=2"),
    _sample("slice", 1, 0, 2, "1", 1 / 3, "{v}, dim=1, start=1, stop=3"),
    _sample("slice", 1, 0, 4, "0", 1 / 2, "{v}, dim=0, start=1, stop=2"),
    _sample("slice", 1, 0, 4, "1", 1 / 4, "{v}, dim=1, start=1, stop=2"),
    _sample("slice", 1, 0, 4, "3", 1 / 2, "{v}, dim=3, start=0, stop=3"),
    _sample("flip", 1, 0, 2, "0", 1, "{v}, dim=0"),
    _sample("flip", 1, 0, 4, "1", 1, "{v}, dim=1"),
    _sample("flip", 1, 0, 4, "2", 1, "{v}, dim=2"),
    _sample("cumsum", 1, 0, 2, "0", 1, "{v}, dim=0"),
    _sample("cumsum", 1, 0, 4, "1", 1, "{v}, dim=1"),
    _sample("cumsum", 1, 0, 4, "2", 1, "{v}, dim=2"),
    _sample("reduce", 1, 0, 2, "0", 1 / 4, "{v}, kind='sum', dims=[0]"),
    _sample("reduce", 1, 0, 2, "1", 1 / 6, "{v}, kind='mean', dims=[1]"),
    _sample("reduce", 1, 0, 4, "23", 1 / 36, "{v}, kind='mean', dims=[2, 3]"),
    _sample("reduce", 1, 0, 4, "1", 1 / 4, "{v}, kind='sum', dims=[1]"),
    _sample("avg_pool", 1, 0, 4, "23", 1 / 4, "{v}, kernel=[2, 2], stride=[2, 2]"),
    _sample("avg_pool", 1, 0, 4, "23", 1, "{v}, kernel=[3, 3], stride=[1, 1], padding=[1, 1]"),
    _sample("max_pool", 1, 0, 4, "23", 1 / 4, "{v}, kernel=[2, 2], stride=[2, 2]"),
    _sample("pad", 1, 0, 2, "0", 5 / 4, "{v}, pads=[[1, 0], [0, 0]]"),
    _sample("pad", 1, 0, 4, "1", 5 / 4, "{v}, pads=[[0, 0], [0, 1], [0, 0], [0, 0]]"),
    _sample("pad", 1, 0, 4, "23", 16 / 9, "{v}, pads=[[0, 0], [0, 0], [1, 1], [1, 1]]"),
    _sample("index", 2, 0, 2, "1", 1 / 2, "{v}, {v}i, first=1", "{v}i := integers(3)"),
    _sample("index", 2, 0, 2, "1", 2, "{v}, {v}i, first=1", "{v}i := integers(12)"),
    _sample("index", 3, 0, 4, "23", 1 / 9, "{v}, {v}i, {v}j, first=2", "{v}i := integers(2, 1)", "{v}j := integers(2)"),
    _sample(
        "index", 3, 0, 4, "23", 16 / 9, "{v}, {v}i, {v}j, first=2", "{v}i := integers(8, 1)", "{v}j := integers(8)"
    ),
    _sample("matmul", 2, 0, 2, "1", 1 / 3, "{v}, {v}w", "{v}w := [{v}.shape[1], 2]"),
    _sample("matmul", 2, 0, 2, "1", 3, "{v}, {v}w", "{v}w := [{v}.shape[1], 18]"),
    _sample("matmul", 2, 1, 2, "0", 1 / 2, "{v}w, {v}", "{v}w := [2, {v}.shape[0]]"),
    _sample("matmul", 2, 1, 2, "0", 3, "{v}w, {v}", "{v}w := [12, {v}.shape[0]]"),
    _sample("conv", 2, 0, 4, "1", 1 / 2, "{v}, {v}w", "{v}w := [2, {v}.shape[1], 1, 1]"),
    _sample("conv", 2, 0, 4, "1", 2, "{v}, {v}w", "{v}w := [8, {v}.shape[1], 1, 1]"),
    _sample("conv", 2, 0, 4, "12", 2, "{v}, {v}w, padding=[1, 0]", "{v}w := [8, {v}.shape[1], 3, 1]"),
    _sample("conv_transpose", 2, 0, 4, "123", 8, "{v}, {v}w, stride=[2, 2]", "{v}w := [{v}.shape[1], 8, 2, 2]"),
    _sample("conv_transpose", 2, 0, 4, "1", 1 / 2, "{v}, {v}w", "{v}w := [{v}.shape[1], 2, 1, 1]"),
    _sample("conv_transpose", 2, 1, 4, "?", 1, "{v}x, {v}", "{v}x := [1, {v}.shape[0], 3, 3]"),
    _sample("conv", 2, 1, 4, "?", 1, "{v}x, {v}", "{v}x := [1, {v}.shape[1], 8, 8]"),
    _sample("sdpa", 3, 2, 4, "?", 1, "{v}q, {v}k, {v}", "{v}q := [2, 4, 5, 6]", "{v}k := [2, 4, 6, 6]"),
    _sample("view", 1, 0, 2, "?", 1, "{v}, shape=[24]"),
    _sample("permute", 1, 0, 3, "?", 1, "{v}, dims=[1, 2, 0]"),
    _sample("expand", 1, 0, 2, "?", 2, "{v}, shape=[2, 4, 6]"),
    _sample("diagonal", 1, 0, 4, "?", 1 / 6, "{v}"),
    _sample("embedding", 2, 0, 2, "?", 1 / 2, "{v}, {v}i", "{v}i := integers(2)"),
    _sample("embedding", 2, 0, 2, "?", 2, "{v}, {v}i", "{v}i := integers(2, 4)"),
    _sample(
        "embedding_bag", 3, 0, 2, "?", 1 / 2, "{v}, {v}i, {v}o", "{v}i := integers(4)", "{v}o := integers(2, repeats=1)"
    ),
]


def samples_of(place: Place) -> list[Sample]:
    """The samples of a place."""
    return [sample for sample in SAMPLES if sample.place == place]


def sampled_places() -> list[Place]:
    """Every place that has a sample, once."""
    return list(dict.fromkeys(sample.place for sample in SAMPLES))
