"""Frozen graphs in Inductor's cache of compiled graphs.

That cache knows frozen weights: its key has their metadata, and a cached graph takes the weights of the process that
loads it. It gives a graph up, though, one of whose weights was packed by oneDNN (torch 2.14.1,
torch/_inductor/codecache.py), because such tensors cannot be pickled. They need not be: a packed weight describes its
own layout to the kernel that reads it, so that shape and dtype are enough for the key, and values are never stored.
Without this each process generated the code of a frozen model anew.

Not so where Inductor's own kernels for products are tried: these pack weights once more while code is made, and their
values are stored with it. Nor for integers, whose compensation for zero points is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import torch
from torch._inductor import codecache, config
from torch._inductor.freezing_utils import is_frozen_param


@contextlib.contextmanager
def packed_weights_in_keys(patches: Mapping[str, Any]) -> Iterator[None]:
    """Compile in here, with these ``patches`` of Inductor's settings: graphs with packed frozen weights are looked up
    and stored."""
    validator: Any = getattr(codecache, "CacheabilityValidator", None)
    pickler: Any = codecache.FxGraphCachePickler
    packs_again = any(patches.get(name, getattr(config, name)) for name in ("max_autotune", "max_autotune_gemm"))
    if packs_again or not hasattr(validator, "check_tensor") or not hasattr(pickler, "_reduce_tensor"):
        yield
        return
    check, reduce = validator.check_tensor, pickler._reduce_tensor

    def check_others(tensor: torch.Tensor) -> None:
        if not _is_packed_weight(tensor):
            check(tensor)

    def reduce_others(self: Any, tensor: torch.Tensor) -> Any:
        if _is_packed_weight(tensor):
            return _packed, (tuple(tensor.shape), str(tensor.dtype), tensor.requires_grad)
        return reduce(self, tensor)

    with (
        mock.patch.object(validator, "check_tensor", staticmethod(check_others)),
        mock.patch.object(pickler, "_reduce_tensor", reduce_others),
    ):
        yield


def _is_packed_weight(tensor: torch.Tensor) -> bool:
    return bool(tensor.is_mkldnn) and tensor.is_floating_point() and is_frozen_param(tensor)


def _packed(*description: Any) -> Any:
    """What a packed weight is in a key."""
    return description
