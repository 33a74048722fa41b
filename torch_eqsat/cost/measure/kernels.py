"""Measures heavy kernels by calling the operators that Inductor's compiled code calls (seen with torch 2.14.1).

| kernel, on a CPU | frozen | plain |
|---|---|---|
| matmul, rank 2, float32 | ``mkl._mkl_linear``; a bias is added by the next pointwise kernel | ``mm``, ``addmm`` |
| matmul, rank 2, bfloat16 and float16 | ``mkldnn._linear_pointwise`` with the bias | ``mm``, ``addmm`` |
| matmul, rank 3 | ``bmm`` | ``bmm`` |
| conv 2d | ``mkldnn._convolution_pointwise``, channels last | ``convolution``; image *and weight* channels last |
| conv 3d | ``mkldnn._convolution_pointwise``, channels last | ``convolution``, contiguous |
| conv 1d | ``convolution``, contiguous | the same |
| conv_transpose 2d | ``mkldnn._convolution_transpose_pointwise``, channels last | ``convolution``, channels last |
| conv_transpose 3d | ``mkldnn._convolution_transpose_pointwise``, channels last | ``convolution``, contiguous |
| sdpa | ``_scaled_dot_product_flash_attention_for_cpu`` | the same |

The data that a kernel shares with its neighbours (activations) is warm in the cache when it starts, the weights
are cold unless they are tiny: each callable has weights of its own, :data:`ROTATED_BYTES` together, and all have their
turn before one is called again.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from torch_eqsat.cost.kernel import Kernel, Measurement
from torch_eqsat.cost.measure.timer import Call, Timer
from torch_eqsat.cost.table import Context, cpu_model
from torch_eqsat.counters import count_timing
from torch_eqsat.errors import MeasurementError

aten = torch.ops.aten

ROTATED_BYTES = 4 * 2**20
"""Bytes of weights that are gone through in turn: twice the L2 cache of a recent server core (2 MiB)."""

COLD_BYTES = 96 * 2**20
"""The same for a kernel whose weight comes from memory: three times the L3 cache that a core commonly shares."""

_MOST_COPIES, _MOST_COLD_COPIES = 8, 96
_BLOCK = 2**16

# On a machine with other jobs the spreads of 29 kernels were below 0.1, but for one of 0.2.
_STEADY = 0.25
_REFUSED = 1.0  # a median twice the low quantile
_LARGE = 2**28


def measure(kernel: Kernel, timer: Timer) -> Measurement:
    """The time of one kernel on random data. Raises MeasurementError where samples differ too much, and whatever the
    kernel raises when it cannot run."""
    if kernel.device != timer.device:
        raise ValueError(f"a timer of {timer.device} cannot time a kernel of {kernel.device}")
    count_timing("kernel")
    if kernel.bytes > _LARGE:
        _check_memory(kernel)
    with plain_torch(kernel.device):
        calls = calls_of(kernel)
        first = timer.time(calls)
        if first.spread <= _STEADY:
            return first
        # Other programs disturb the timing, and only ever make it slower: the better
        # of two attempts is nearer to the truth.
        better = min(first, timer.time(calls), key=lambda measured: measured.ms)
    if better.spread > _REFUSED:
        raise MeasurementError(
            f"{kernel.key}: half of the samples took over {1 + better.spread:.1f} times the fastest, at most "
            f"{1 + _REFUSED:.0f} times is trusted; let the machine do less besides"
        )
    return better


def _check_memory(kernel: Kernel) -> None:
    """Refuse operands that, with a packed copy of the weight, do not fit in memory: Linux would kill the program."""
    if kernel.device != "cpu" or "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if 3 * kernel.bytes > free:
        raise MemoryError(f"{3 * kernel.bytes / 2**30:.1f} GiB are needed, {free / 2**30:.1f} are free")


def context_of(device: str) -> Context:
    """What a time measured now on this type of device depends on, besides the kernel."""
    name = torch.cuda.get_device_name() if device == "cuda" else device
    cpu = f"{cpu_model()} {torch.backends.cpu.get_cpu_capability()}"
    torchs = [torch.__version__, *_libraries()]
    reduced = [f"{kind} {p}" for kind, p in _precisions(device) if p in ("bf16", "tf32")]
    return Context(name, cpu, torch.get_num_threads(), " ".join([*torchs, *reduced]))


def _precisions(device: str) -> list[tuple[str, str]]:
    """What float32 operands are rounded to inside products and convolutions, as the user set it."""
    cpu, cuda = torch.backends.mkldnn, torch.backends.cuda
    matmul, conv = (cuda.matmul, torch.backends.cudnn.conv) if device == "cuda" else (cpu.matmul, cpu.conv)
    return [("matmul", matmul.fp32_precision), ("conv", conv.fp32_precision)]


def _libraries() -> list[str]:
    """The versions of MKL and oneDNN, which run the heavy kernels: torch's own version does not tell them."""
    lines = [line.strip(" -") for line in torch.__config__.show().splitlines()]
    return [line for line in lines if "Math Kernel Library" in line or "MKL-DNN" in line]


@contextlib.contextmanager
def plain_torch(device: str) -> Iterator[None]:
    """Real tensors, no gradients and no autocast, also in the middle of a compilation with its fake tensors."""
    with _disable_current_modes(), torch.no_grad(), torch.autocast(device, enabled=False):
        yield


def calls_of(kernel: Kernel) -> list[Call]:
    """Callables that run the kernel, alike but for their weights."""
    builders: dict[str, Callable[[Kernel, _Source], list[Call]]] = {
        "matmul": _matmul_calls,
        "conv": _conv_calls,
        "conv_transpose": _transposed_conv_calls,
        "sdpa": _sdpa_calls,
    }
    return builders[kernel.kind](kernel, _Source(kernel))


class _Source:
    """Random operands, from a generator of its own: the program's random numbers stay as they are."""

    def __init__(self, kernel: Kernel) -> None:
        self._cold = kernel.cold
        self._generator = torch.Generator(kernel.device).manual_seed(0)
        self._options: dict[str, Any] = {"device": kernel.device, "dtype": getattr(torch, kernel.dtype)}

    def tensor(self, *shape: int) -> Any:
        """Normal numbers that repeat after a block: to draw them all takes longer than many a kernel."""
        numel = math.prod(shape)
        block = torch.randn(min(numel, _BLOCK), generator=self._generator, **self._options)
        return block.repeat(math.ceil(numel / block.numel()))[:numel].reshape(shape)

    def weights(self, *shape: int) -> list[Any]:
        """As many tensors of this shape as rotate them out of the cache."""
        return self.rotated(self.tensor(*shape))

    def rotated(self, weight: Any) -> list[Any]:
        """A weight with as many copies as rotate it out of the cache; on a GPU the timer flushes it, so with none."""
        rotated, most = (COLD_BYTES, _MOST_COLD_COPIES) if self._cold else (ROTATED_BYTES, _MOST_COPIES)
        wanted = rotated // (weight.numel() * weight.element_size())
        return [weight, *(weight.clone() for _ in range(min(wanted, most - 1) if weight.device.type == "cpu" else 0))]


def _matmul_calls(kernel: Kernel, source: _Source) -> list[Call]:
    a, b = kernel.shapes
    x = source.tensor(*a)
    bias = source.tensor(b[-1]) if kernel.bias else None
    build = _packed_linear_call if _packs_linear(kernel) else _plain_matmul_call
    if kernel.turned:
        return [build(x, weight.mT, bias) for weight in source.weights(*b[:-2], b[-1], b[-2])]
    return [build(x, weight, bias) for weight in source.weights(*b)]


def _plain_matmul_call(x: Any, weight: Any, bias: Any) -> Call:
    if x.dim() == 3:
        return lambda: torch.bmm(x, weight)
    if bias is not None:
        return lambda: torch.addmm(bias, x, weight)
    return lambda: torch.mm(x, weight)


def _packs_linear(kernel: Kernel) -> bool:
    """Whether this build of torch packs the frozen weight, by the conditions of Inductor's packing pass."""
    if not kernel.weight or not torch._C._has_mkldnn:
        return False
    if kernel.dtype == "bfloat16":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if kernel.dtype == "float16":
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return _low_precision(torch.float32) or bool(torch._C.has_mkl)


def _low_precision(dtype: Any) -> bool:
    """Whether a packed product goes to oneDNN: half types; float32 at reduced precision or on Arm."""
    reduced = torch.backends.mkldnn.matmul.fp32_precision in ("bf16", "tf32")
    return dtype != torch.float32 or reduced or bool(torch.ops.mkldnn._is_mkldnn_acl_supported())


def _packed_linear_call(x: Any, weight: Any, bias: Any) -> Call:
    # The packing ops want the weight as nn.Linear holds it, [n, k].
    rows, turned = x.shape[0], weight.t().contiguous()
    if _low_precision(weight.dtype):
        packed = torch.ops.mkldnn._reorder_linear_weight(turned, rows)
        return lambda: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    packed = torch.ops.mkl._mkl_reorder_linear_weight(turned, rows)
    if bias is None:
        return lambda: torch.ops.mkl._mkl_linear(x, packed, turned, None, rows)
    # Inductor never gives the bias to this op; it adds it in the next kernel, which add_ stands for.
    return lambda: torch.ops.mkl._mkl_linear(x, packed, turned, None, rows).add_(bias)


def _conv_calls(kernel: Kernel, source: _Source) -> list[Call]:
    image, window = kernel.shapes
    x = source.tensor(*image)
    bias = source.tensor(window[0]) if kernel.bias else None
    if kernel.weight and torch._C._has_mkldnn:
        return _packed_conv_calls(kernel, x, source, bias)
    return [_plain_conv_call(kernel, x, weight, bias) for weight in source.weights(*window)]


def _transposed_conv_calls(kernel: Kernel, source: _Source) -> list[Call]:
    image, window = kernel.shapes
    x = source.tensor(*image)
    if kernel.weight and torch._C._has_mkldnn:
        return _packed_transposed_calls(kernel, x, source)
    return [_plain_transposed_call(kernel, x, weight) for weight in source.weights(*window)]


def _packed_transposed_calls(kernel: Kernel, x: Any, source: _Source) -> list[Call]:
    x = x.contiguous(memory_format=_channels_last(x))
    none = [0] * len(kernel.padding)
    rest = (list(kernel.padding), none, list(kernel.stride), list(kernel.dilation), kernel.groups)
    weight = source.tensor(*kernel.shapes[1])
    first = torch.ops.mkldnn._reorder_convolution_transpose_weight(weight, *rest, list(x.shape))
    run = torch.ops.mkldnn._convolution_transpose_pointwise
    return [partial(run, x, packed, None, *rest, "none", [], "") for packed in source.rotated(first)]


def _plain_transposed_call(kernel: Kernel, x: Any, weight: Any) -> Call:
    """Over two axes on a CPU Inductor has the channels last, of an unfrozen weight by a copy in each call: 0.67 ms in
    place of 1.66 for 64 to 32 channels at 64x64 (AMD EPYC, family 26)."""
    axes = x.dim() - 2
    rest = (None, kernel.stride, kernel.padding, kernel.dilation, True, (0,) * axes, kernel.groups)
    if axes != 2 or not x.is_cpu:
        return partial(aten.convolution, x, weight, *rest)
    x = x.contiguous(memory_format=torch.channels_last)
    return lambda: aten.convolution(x, weight.contiguous(memory_format=torch.channels_last), *rest)


def _packed_conv_calls(kernel: Kernel, x: Any, source: _Source, bias: Any) -> list[Call]:
    """A packed weight is copied, which takes a quarter of the time of packing each copy of a plain one."""
    x = x.contiguous(memory_format=_channels_last(x))
    rest = (list(kernel.padding), list(kernel.stride), list(kernel.dilation), kernel.groups)
    first = torch.ops.mkldnn._reorder_convolution_weight(source.tensor(*kernel.shapes[1]), *rest, list(x.shape))
    run = torch.ops.mkldnn._convolution_pointwise
    return [partial(run, x, packed, bias, *rest, "none", [], "") for packed in source.rotated(first)]


def _plain_conv_call(kernel: Kernel, x: Any, weight: Any, bias: Any) -> Call:
    axes = x.dim() - 2
    rest = (kernel.stride, kernel.padding, kernel.dilation, False, (0,) * axes, kernel.groups)
    if axes != 2 or not x.is_cpu:
        return lambda: aten.convolution(x, weight, bias, *rest)
    # Inductor turns 2-d convolutions on a CPU to channels last, frozen or not; an unfrozen weight is copied in
    # each call (no copy is made where the layouts agree, as for 1x1 windows).
    x = x.contiguous(memory_format=torch.channels_last)
    return lambda: aten.convolution(x, weight.contiguous(memory_format=torch.channels_last), bias, *rest)


def _channels_last(x: Any) -> Any:
    return torch.channels_last if x.dim() == 4 else torch.channels_last_3d


def _sdpa_calls(kernel: Kernel, source: _Source) -> list[Call]:
    # Heads are cut out of one linear's rows in nearly every model: laid out as [B, L, H, D].
    q, k, v = (source.tensor(b, rows, h, d).transpose(1, 2) for b, h, rows, d in kernel.shapes)
    if kernel.device == "cpu":
        return [lambda: aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, kernel.causal)]
    return [lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=kernel.causal)]
