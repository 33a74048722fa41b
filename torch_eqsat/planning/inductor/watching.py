"""The check before each call that no weight changed of those that are constants of a compiled graph."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from itertools import count
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from torch_eqsat.planning.inductor.sampling import Sample, can_be_read, has_memory
from torch_eqsat.planning.inductor.versions import note_of

_Look = Callable[[Tensor], Any]
_version: _Look = attrgetter("_version")
_shape: _Look = attrgetter("shape")
_numbers = count(2)


class Watch:
    """The constants among the weights of one compiled graph, and how they stood when they became that.

    Dynamo guards on the result of :meth:`state`, once for all weights. Guards on counters and addresses of each weight
    lie scattered in memory: all guards of mobileone_s0, which has 1,323 weights, took 2.6 to 3.3 ms of a call with
    them, and take 1.3 to 2.4 so (`python -m bench.prices.guards mobileone_s0 eqsat`, on an Intel Xeon).
    """

    def __init__(self, weights: Iterable[Tensor], *, formless: Iterable[Tensor] = (), values: bool = False) -> None:
        """``formless`` are the weights at whose shapes and strides no guard looks; ``values`` asks for contents."""
        weights, others = list(weights), {id(weight) for weight in formless}
        alike: dict[tuple[_Look, ...], list[Tensor]] = {}
        for weight in weights:
            alike.setdefault(tuple(_looks(weight, id(weight) in others, values)), []).append(weight)
        # Neither the weights, which would stay in memory, nor weak references to them, which keep them from being
        # swapped (`torch.utils.swap_tensors`): their notes know them.
        self._groups = [
            ([weakref.ref(note_of(weight)) for weight in group], [(look, list(map(look, group))) for look in looks])
            for looks, group in alike.items()
        ]
        self._sample = Sample([weight for weight in weights if can_be_read(weight)])
        self._read = self._sample.read()

    def state(self) -> int:
        """1 if all of the weights are there, and stand as they stood; else a number that never comes back, so that no
        guard that is made just then takes a change for what it has to expect."""
        return 1 if self.unchanged() else next(_numbers)

    def unchanged(self) -> bool:
        """Whether all of the weights are there, and stand as they stood."""
        with torch._C.DisableTorchFunction():
            for notes, seen in self._groups:
                try:
                    weights = [note().owner for note in notes]  # type: ignore[union-attr]
                except AttributeError:  # the weight is gone
                    return False
                if any(list(map(look, weights)) != stood for look, stood in seen):
                    return False
        return bool((self._sample.read() == self._read).all())

    def name_on(self, weight: Tensor) -> str:
        """The name under which the checks of the note on ``weight`` hold this one from now on."""
        name = f"state_{next(_numbers)}"
        setattr(note_of(weight).checks, name, self.state)
        return name


def _looks(weight: Tensor, formless: bool, values: bool) -> list[_Look]:
    """What is compared of a weight. An inference tensor has no version."""
    looks: list[_Look] = [] if weight.is_inference() else [_version]
    if has_memory(weight):
        looks += [_shape, Tensor.stride] if formless else []
        looks += [Tensor.data_ptr, *([_content] if values else [])]
    return looks


def _content(weight: Tensor) -> bytes:
    return note_of(weight).content()
