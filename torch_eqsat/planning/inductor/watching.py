"""Changes of frozen weights that neither Dynamo's guards nor autograd's counters see: other memory put behind a weight
(``weight.data = other``, ``model.half().float()``) and, if asked for, values written through ``.data``.

The weights are compared before each call. A call that finds a change runs the graph as Dynamo captured it, on the
weights as they are now, and counts the change; the next call compiles again.
"""

from __future__ import annotations

import hashlib
import logging
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

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
    plain = {name: weight for name, weight in weights.items() if weight.layout is torch.strided}
    original.let_go(weights)
    if not plain:
        return compiled
    watch = Watch(compiled, original, weights, plain, what)

    def call(*inputs: Any) -> Any:
        return watch(*inputs)

    return call


def let_go(compiled: Callable[..., Any]) -> None:
    """Have a callable of AOTAutograd not keep the module that it was made of, and with it the weights: a frozen model
    that the user deleted stayed in memory (torch 2.14.1)."""
    function: Any = compiled
    while function is not None:
        own = vars(function)
        for name in _KEPT:
            own.pop(name, None)
        function = own.get("_torchdynamo_orig_callable") or own.get("__wrapped__")


class Watch:
    """A compiled callable whose weights are compared before each call."""

    def __init__(
        self,
        compiled: Callable[..., Any],
        original: Reference,
        weights: Mapping[str, Tensor],
        plain: Mapping[str, Tensor],
        what: str,
    ) -> None:
        self._compiled, self._original = compiled, original
        self._weights = {name: weakref.ref(weight) for name, weight in weights.items()}
        self._plain = [self._weights[name] for name in plain]
        self._look = _content if what == VALUES else Tensor.data_ptr
        self._said = False
        # While the memory of a weight is kept, none that replaces it has its address.
        self._memory = [weight.detach() for weight in plain.values()]
        self._seen = [self._look(weight) for weight in plain.values()]

    def __call__(self, *inputs: Any) -> Any:
        """The results for ``inputs`` and the weights as they are now."""
        look = self._look
        try:
            seen = [look(weight()) for weight in self._plain]
        except TypeError:  # a weight is gone: guards, which would have seen that, are switched off
            return self._compiled(*inputs)
        if seen == self._seen:
            return self._compiled(*inputs)
        changed = [weight() for weight, a, b in zip(self._plain, seen, self._seen, strict=True) if a != b]
        torch.autograd.graph.increment_version([w for w in changed if w is not None and not w.is_inference()])
        logger.info(
            "%d weights of a compiled graph changed unseen by autograd: this call runs as captured", len(changed)
        )
        weights = [self._weights[name]() if name in self._weights else None for name in self._original.names]
        return self._original.run_with(inputs, weights)


def _content(weight: Tensor) -> bytes:
    plain = weight.detach().resolve_conj().resolve_neg().cpu().contiguous().flatten()
    return hashlib.blake2b(plain.view(torch.uint8).numpy() if plain.numel() else b"", digest_size=16).digest()
