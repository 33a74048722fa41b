"""Values for the placeholders of a graph: known real values, random ones, and hard ones made from both."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.fx import Graph
from torch.utils._pytree import tree_map

from torch_eqsat.graph.aten.deciding import is_choice

OFFSET = 4096.0  # added to all numbers of an input, in units of their root mean square
SCALE = 2.0**20


@dataclass(frozen=True)
class Variant:
    """Inputs for a graph. ``name`` says what is hard about them, "" for the known ones.

    ``batch`` is the number of samples if the first one contains an infinity, which may reach that sample only, else 0.
    With ``extreme`` numbers, which may overflow in one program or the other, only elements are compared that the
    original computes as finite. ``rounding`` says whether rounding errors are compared: with equal numbers they add up
    in long sums, in one order of summation more than in another. With ``choices_once`` the calls that choose run once,
    and what they are given is compared: in the rewritten graph rounding might choose otherwise.
    """

    name: str
    inputs: list[Any]
    batch: int = 0
    extreme: bool = False
    rounding: bool = True
    choices_once: bool = False

    @property
    def key(self) -> str:
        """What tells it from the other variants of the same inputs."""
        return f"{self.name} of {self.batch}" if self.batch else self.name

    @property
    def kinds_only(self) -> bool:
        """Whether only the places of infinities and NaNs are compared."""
        return self.batch > 0

    def may_compare(self, value: torch.Tensor) -> bool:
        """Whether an output with the value ``value`` is compared: integers made of extreme numbers are not."""
        return value.is_floating_point() or not self.extreme

    def spared(self, value: torch.Tensor) -> torch.Tensor | None:
        """The elements of ``value`` that an infinity in the first sample may reach; None if no infinities are
        expected."""
        if not self.batch:
            return torch.zeros_like(value, dtype=torch.bool) if self.extreme else None
        spared = torch.ones_like(value, dtype=torch.bool)
        if value.dim() and value.shape[0] % self.batch == 0 and value.shape[0] >= self.batch > 1:
            spared[value.shape[0] // self.batch :] = False
        return spared


def variants(graph: Graph, inputs: Sequence[Any], live: Sequence[int]) -> Iterator[Variant]:
    """The known inputs, then hard ones, made from them at the places ``live``."""
    yield Variant("", list(inputs))
    places = [i for i in live if _is_float(inputs[i])]
    hard = partial(Variant, extreme=True, choices_once=any(map(is_choice, graph.nodes)))

    def changed(change: Callable[[torch.Tensor], torch.Tensor]) -> list[Any]:
        return [_lying_as(v, change(v)) if i in places else v for i, v in enumerate(inputs)]

    if places:
        yield hard("large common offsets", changed(_offset))
        yield hard("large numbers", changed(lambda x: x * _scale_of(x)))
        yield hard("small numbers", changed(lambda x: x / _scale_of(x)))
        yield hard("equal rows", changed(_of_equal_rows), rounding=False)
    masks = [i for i in live if _is_mask(inputs[i])]
    for name, closed in (("closed masks", True), ("masks of infinities", False)) if masks else ():
        yield Variant(name, [_lying_as(v, _masked(v, closed)) if i in masks else v for i, v in enumerate(inputs)])
    # Some inputs may be tables, whose first size is no batch size, so every first size is tried.
    for batch in sorted({inputs[i].shape[0] for i in places if inputs[i].dim() > 1 and inputs[i].shape[0] > 1}):
        yield Variant("an infinity in the first sample", changed(partial(_with_infinity, batch=batch)), batch=batch)


def _is_float(value: Any) -> bool:
    """Whether ``value`` has floating numbers, of more than eight bits: for others torch has hardly any function."""
    if not isinstance(value, torch.Tensor) or value.numel() == 0:
        return False
    return bool(value.is_floating_point() and value.dtype.itemsize > 1)


def _rms(x: torch.Tensor) -> float:
    finite = x[torch.isfinite(x)].double()
    return float(finite.square().mean().sqrt()) if finite.numel() else 0.0


def _offset(x: torch.Tensor) -> torch.Tensor:
    size = _rms(x)
    return (x.double() + OFFSET * size).to(x.dtype) if size * OFFSET < torch.finfo(x.dtype).max / 4 else x


def _scale_of(x: torch.Tensor) -> float:
    """The factor for large and small numbers; smaller for half types, so that eager's results stay finite."""
    return SCALE if torch.finfo(x.dtype).max > 1e30 else 4.0


def _of_equal_rows(x: torch.Tensor) -> torch.Tensor:
    return x[:1].expand_as(x).clone() if x.dim() > 1 else x


def _is_mask(value: Any) -> bool:
    """Whether ``value`` may be a mask: truth values, or numbers that are all 0 or very negative (added to scores)."""
    if not isinstance(value, torch.Tensor) or value.numel() < 2:
        return False
    if value.dtype == torch.bool:
        return True
    return _is_float(value) and bool(((value == 0) | (value < -1e4)).all())


def _masked(x: torch.Tensor, closed: bool) -> torch.Tensor:
    """``x`` with the last half of the positions masked (``closed``), or every second one."""
    flat = torch.zeros_like(x).contiguous().view(-1)
    where = slice(flat.numel() // 2, None) if closed else slice(None, None, 2)
    if x.dtype == torch.bool:
        flat[where] = True
    else:
        flat[where] = torch.finfo(x.dtype).min if closed else -torch.inf
    return flat.view(x.shape)


def _with_infinity(x: torch.Tensor, batch: int) -> torch.Tensor:
    if x.dim() < 2 or x.shape[0] != batch:
        return x
    copy = x.contiguous().clone()
    copy[0].view(-1)[0] = torch.inf
    return copy


def jittered(inputs: Sequence[Any], seed: int) -> list[Any]:
    """``inputs`` with each number changed by up to a unit in the last place."""
    generator = torch.Generator().manual_seed(seed)

    def off(value: Any) -> Any:
        if not _is_float(value):
            return value
        factor = torch.rand(value.shape, generator=generator, dtype=torch.float64).to(value.device) * 2 - 1
        return (value.double() * (1 + torch.finfo(value.dtype).eps * factor)).to(value.dtype)

    return [off(value) for value in inputs]


def sample_inputs(graph: Graph, known: Sequence[Any], *, zeros: bool = False) -> list[Any]:
    """Real values for the placeholders of ``graph``: values of ``known``, in order, where they fit, and random ones
    elsewhere. Random integers are 0 or 1, or all 0 with ``zeros``.

    Random weights have the scale of an initialisation, so that values in deep graphs neither explode nor vanish.
    """
    generator = torch.Generator().manual_seed(0)
    values = []
    with unset_fake_temporarily():
        for index, node in enumerate(graph.find_nodes(op="placeholder")):
            fake = node.meta["val"]
            value = known[index] if index < len(known) else None
            values.append(value if _stands_for(value, fake) else _random(fake, generator, zeros))
    return values


def made_up(fake: Any, name: str) -> Any:
    """Random values in place of the results of the call ``name``, different for each name."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return tree_map(lambda leaf: _random(leaf, generator, True), fake)


def _stands_for(value: Any, fake: Any) -> bool:
    """Whether ``value`` is a real tensor of the placeholder's shape and dtype."""
    if not isinstance(value, torch.Tensor) or not isinstance(fake, torch.Tensor) or isinstance(value, FakeTensor):
        return False
    static = all(type(n) is int for n in fake.shape)  # a comparison with a symbolic size would add a guard
    return static and bool(value.shape == fake.shape and value.dtype == fake.dtype)


def _lying_as(fake: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """``value`` with the strides of ``fake``, which has its shape: a graph may view its inputs in ways that other
    strides do not allow. Where elements of ``fake`` share memory ``value`` stays as it is."""
    return lying_at(value, _hints(fake.stride())) if fake.layout is torch.strided else value


def lying_at(value: torch.Tensor, strides: Sequence[int]) -> torch.Tensor:
    """``value`` with these strides; as it is where elements would share memory."""
    if value.layout is not torch.strided or not value.numel():
        return value
    if list(value.stride()) == list(strides):
        return value
    axes = sorted((s, n) for s, n in zip(strides, value.shape, strict=True) if n > 1)
    reached = 0
    for stride, size in axes:
        if stride <= reached:
            return value
        reached += (size - 1) * stride
    return torch.empty_strided(value.shape, list(strides), dtype=value.dtype, device=value.device).copy_(value)


def _hints(sizes: Sequence[Any]) -> list[int]:
    return [n if type(n) is int else n.node.hint for n in sizes]  # int() would add a guard


def _random(fake: Any, generator: torch.Generator, zeros: bool) -> Any:
    if not isinstance(fake, torch.Tensor):
        return fake.node.hint if isinstance(fake, torch.SymInt) else fake
    return _lying_as(fake, _random_numbers(fake, generator, zeros))


def _random_numbers(fake: torch.Tensor, generator: torch.Generator, zeros: bool) -> torch.Tensor:
    shape = _hints(fake.shape)
    if fake.is_complex():
        pair = torch.randn([*shape, 2], generator=generator)
        return torch.view_as_complex(pair).to(fake.device, fake.dtype)
    if not fake.is_floating_point():
        highest = 1 if zeros and fake.dtype != torch.bool else 2
        return torch.randint(0, highest, shape, generator=generator).to(fake.device, fake.dtype)
    if len(shape) < 2:
        value = torch.rand(shape, generator=generator) + 0.5
    else:
        value = torch.randn(shape, generator=generator) * max(1, torch.Size(shape[1:]).numel()) ** -0.5
    return value.to(fake.device, fake.dtype)
