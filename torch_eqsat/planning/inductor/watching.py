"""Changes of frozen weights that neither Dynamo's guards nor autograd's counters see: other memory put behind a weight
(``weight.data = other``, ``model.half().float()``) and, if asked for, values written through ``.data``.

The weights are compared before each call. A call that finds a change runs the graph as Dynamo captured it, on the
weights as they are now, and counts the change; the next call compiles again.
"""

from __future__ import annotations

import hashlib
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from torch_eqsat.planning.inductor.versions import note_of
from torch_eqsat.verification.guard import Reference

logger = logging.getLogger(__name__)

ADDRESSES, VALUES = "addresses", "values"
"""What is compared: an address takes 40 ns a weight; values are all read, at about 1 GB/s."""
_KEPT = ("zero_grad", "named_parameters", "named_buffers")


def watched(
    compiled: Callable[..., Any], original: Reference, weights: Mapping[str, Tensor], what: str
) -> Callable[..., Any]:
    """``compiled``, of which ``weights`` are constants, by their names in the graph ``original``."""
    let_go(compiled)
    original.let_go(weights)
    for weight in weights.values():
        note_of(weight).owner = weight
    watch = Watch(compiled, original, weights, what)

    def call(*inputs: Any) -> Any:
        return watch(*inputs)

    return call if weights else compiled


def let_go(compiled: Callable[..., Any]) -> None:
    """Have a callable of AOTAutograd not keep the module that it was made of, and with it the weights: a frozen model
    that the user deleted stayed in memory (torch 2.14.1)."""
    function: Any = compiled
    while function is not None:
        own = getattr(function, "__dict__", {})
        for name in _KEPT:
            own.pop(name, None)
        function = own.get("_torchdynamo_orig_callable") or own.get("__wrapped__")


class Watch:
    """A compiled callable whose weights are compared before each call."""

    def __init__(
        self, compiled: Callable[..., Any], original: Reference, weights: Mapping[str, Tensor], what: str
    ) -> None:
        self._compiled, self._original = compiled, original
        # A weight with weak references could not be swapped; its note can.
        self._notes = {name: weakref.ref(note_of(weight)) for name, weight in weights.items()}
        self._plain = [name for name, weight in weights.items() if _has_memory(weight)]
        self._look = _content if what == VALUES else Tensor.data_ptr
        # While the memory of a weight is kept, none that replaces it has its address.
        self._memory = [weights[name].untyped_storage() for name in self._plain]
        self._compared = [self._notes[name] for name in self._plain]
        self._compiled_with = [self._look(weights[name]) for name in self._plain]
        self._said = False

    def __call__(self, *inputs: Any) -> Any:
        """The results for ``inputs`` and the weights as they are now."""
        look = self._look
        try:
            now = [look(note().owner) for note in self._compared]  # type: ignore[union-attr]
        except AttributeError:  # a weight is gone: guards, which would have seen that, are switched off
            return self._compiled(*inputs)
        return self._compiled(*inputs) if now == self._compiled_with else self._as_captured(inputs, now)

    def _as_captured(self, inputs: Sequence[Any], now: Sequence[Any]) -> Any:
        weights = {name: found.owner for name, note in self._notes.items() if (found := note()) is not None}
        pairs = zip(self._plain, now, self._compiled_with, strict=True)
        changed = [weight for name, a, b in pairs if a != b and (weight := weights[name]) is not None]
        counted = [weight for weight in changed if not weight.is_inference()]
        torch.autograd.graph.increment_version(counted)  # for the guards of the next call
        if len(counted) < len(changed) and not self._said:
            self._said = True
            logger.warning(
                "a frozen inference tensor changed, which has no guard: its graph runs as captured from now on"
            )
        return self._original.run_with(inputs, [weights.get(name) for name in self._original.names])


def _has_memory(weight: Tensor) -> bool:
    return weight.layout is torch.strided and not is_traceable_wrapper_subclass(weight)


def _content(weight: Tensor) -> bytes:
    plain = weight.detach().resolve_conj().resolve_neg().cpu().contiguous().flatten()
    return hashlib.blake2b(plain.view(torch.uint8).numpy() if plain.numel() else b"", digest_size=16).digest()
