"""Prices for work that was not measured: heavy kernels by a roofline, fusible work by its bytes and functions.

The numbers for a CPU were measured with torch 2.14.1, one thread of an Intel Xeon (Sapphire Rapids class, AVX-512
without AMX, 2 MiB of L2, DRAM behind a shared 260 MiB L3) in a virtual machine; those of the GPUs are their
datasheets'.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torch_eqsat.cost.kernel import Kernel

MIB = 2**20

# Flops of a dtype relative to float32 on a CPU: vectors hold half as many doubles, and avx512_bf16/fp16 twice as many
# halves. A CPU with AMX does 8x better than this on bfloat16; Roofline.fitted learns it from measurements.
_CPU_DTYPE_FACTOR = {"float64": 0.5, "float32": 1.0, "bfloat16": 2.0, "float16": 2.0}

# An F(2x2, 3x3) Winograd convolution does 16 multiplications where the direct one does 36. cuDNN uses it; oneDNN
# as torch calls it does not.
_WINOGRAD = 2.25


@dataclass(frozen=True)
class Roofline:
    """A machine as a peak (flops/ms), a memory bandwidth (bytes/ms) and the cost of starting a kernel (ms).

    What fits in ``cache_bytes`` moves at ``cache_bytes_per_ms`` instead.
    """

    peak_flops_per_ms: float
    bytes_per_ms: float
    launch_ms: float
    cache_bytes: float = 0.0
    cache_bytes_per_ms: float = 1.0

    def lower_estimate_ms(self, kernel: Kernel) -> float:
        """An optimistic time in ms: the kernel cannot be much faster, and may well be several times slower."""
        flops = kernel.flops / _WINOGRAD if _may_use_winograd(kernel) else kernel.flops
        cached = kernel.bytes <= self.cache_bytes
        memory = kernel.bytes / (self.cache_bytes_per_ms if cached else self.bytes_per_ms)
        return self.launch_ms + max(flops / self.peak_flops_per_ms, memory)

    def of_cpu_dtype(self, dtype: str) -> "Roofline":
        """This roofline of float32 on a CPU for another dtype."""
        return replace(self, peak_flops_per_ms=self.peak_flops_per_ms * _CPU_DTYPE_FACTOR[dtype])

    def fitted(self, measured: Iterable[tuple[Kernel, float]]) -> "Roofline":
        """This roofline raised to the best rates among measured ``(kernel, ms)`` pairs, so that it stays optimistic."""
        pairs = list(measured)
        small = [(kernel.bytes, ms) for kernel, ms in pairs if kernel.bytes <= self.cache_bytes]
        large = [(kernel.bytes, ms) for kernel, ms in pairs if kernel.bytes > self.cache_bytes]
        return replace(
            self,
            peak_flops_per_ms=_best(self.peak_flops_per_ms, [(kernel.flops, ms) for kernel, ms in pairs]),
            bytes_per_ms=_best(self.bytes_per_ms, large),
            cache_bytes_per_ms=_best(self.cache_bytes_per_ms, small),
            launch_ms=min([self.launch_ms, *(ms for _, ms in pairs)]),
        )


def _best(rate: float, work: Iterable[tuple[int, float]]) -> float:
    return max([rate, *(amount / ms for amount, ms in work)])


def _may_use_winograd(kernel: Kernel) -> bool:
    if kernel.kind != "conv" or kernel.device == "cpu" or kernel.groups > 1:
        return False
    return kernel.shapes[1][2:] == (3, 3) and set(kernel.stride) == set(kernel.dilation) == {1}


def cpu_roofline(threads: int = 1, dtype: str = "float32") -> Roofline:
    """A roofline for ``threads`` cores.

    One thread reached 172 Gflop/s in float32 products and convolutions, 28 GB/s reading 16 MiB, 95 GB/s out of L2, and
    started an 8x8 mm inside a compiled graph in 2.1 µs. AVX2 cores reach half of that peak, so there it is twice
    as optimistic. Perfect scaling over threads is assumed, which is optimistic too.
    """
    return Roofline(
        peak_flops_per_ms=175e6 * threads * _CPU_DTYPE_FACTOR[dtype],
        bytes_per_ms=28e6 * threads,
        launch_ms=1.5e-3,
        cache_bytes=2 * MIB * threads,
        cache_bytes_per_ms=95e6 * threads,
    )


@dataclass(frozen=True)
class Gpu:
    """A card's datasheet: dense Tflop/s by dtype (tensor cores where torch uses them) and its memory's GB/s."""

    tflops: Mapping[str, float]
    gb_per_s: float


# NVIDIA's datasheets: H100 SXM, H200 SXM, A100 80GB SXM, L4; without sparsity. float32 is without TF32, torch's
# default.
_HOPPER = {"float64": 67.0, "float32": 67.0, "bfloat16": 989.0, "float16": 989.0}
GPUS = {
    "H100": Gpu(_HOPPER, 3350.0),
    "H200": Gpu(_HOPPER, 4800.0),
    "A100": Gpu({"float64": 19.5, "float32": 19.5, "bfloat16": 312.0, "float16": 312.0}, 2039.0),
    "L4": Gpu({"float64": 0.47, "float32": 30.3, "bfloat16": 121.0, "float16": 121.0}, 300.0),
}


def gpu_roofline(name: str, dtype: str = "float32") -> Roofline | None:
    """A roofline for the card of that name ("NVIDIA H100 80GB HBM3" and "H100" alike), or None where it is unknown."""
    words = re.split(r"[\s_-]+", name)
    gpu = next((gpu for known, gpu in GPUS.items() if known in words), None)
    if gpu is None:
        return None
    return Roofline(gpu.tflops[dtype] * 1e9, gpu.gb_per_s * 1e6, GPU_LAUNCH_MS)


GPU_LAUNCH_MS = 2.5e-3
"""A kernel started from a stream that is kept full, in ms; an estimate, not measured here."""


@dataclass(frozen=True)
class Coefficients:
    """What fusible work costs: bandwidths, the start of a kernel (ms), and ns per element and function of a class.

    The defaults are those of one CPU thread, measured on kernels that Inductor compiled:

    * a pointwise kernel costs 1.4 µs inside a compiled graph (the graph's own guards, 18 µs a call, are not part
      of that);
    * (x + y) * y moves 25 GB/s out of L3 or DRAM, 95 GB/s when all of it fits in L2;
    * an output of 32 MiB or more is fresh memory in every call (glibc gives such blocks back to the kernel), and
      its page faults cost 0.52 ns a byte: 21.7 ms against 2.0 ms for half that size;
    * per element, taken at 64 Ki elements over x + y: add, mul, relu 0.01 ns; div 0.09, sqrt 0.15; exp 0.26, sin 0.24,
      sigmoid 0.38, log 0.5, erf 0.55; tanh 1.6, pow 2.7;
    * on an AMD EPYC (family 26), beyond its bytes: an element of a sum of rows 0.01 ns, of a maximum of rows or a sum
      of columns 0.1; an element of a pool's window, which is not vectorised, 0.19; an element gathered along the
      innermost axis 0.45;
    * an element of an image that a shuffle of pixels makes, whose place is divided out for each, 0.8 to 1 ns from a
      cache and to 2.7 from memory (64 channels of 112x112); 1.5 to 6 ns in half precision (AMD EPYC, family 26).

    Memory and compute time are added, not overlapped: exp adds 0.33 ns an element to a kernel bound by memory too,
    tanh 1.67.
    """

    bytes_per_ms: float = 25e6
    cache_bytes: float = 2 * MIB
    cache_bytes_per_ms: float = 95e6
    last_level_bytes: float = 0.0
    fresh_bytes: float = 32 * MIB
    fresh_ms_per_byte: float = 0.52e-6
    launch_ms: float = 1.4e-3
    cheap_ns: float = 0.01
    division_ns: float = 0.12
    transcendental_ns: float = 0.4
    slow_ns: float = 2.0
    reduction_ns: float = 0.05
    pooling_ns: float = 0.19
    gather_ns: float = 0.45
    shuffle_ns: float = 1.0
    half_shuffle_ns: float = 3.5

    def for_threads(self, threads: int) -> "Coefficients":
        """The same for several threads: compute and caches scale; memory saturates, at 4 threads by assumption."""
        streams = min(threads, 4)
        return replace(
            self,
            bytes_per_ms=self.bytes_per_ms * streams,
            cache_bytes=self.cache_bytes * threads,
            cache_bytes_per_ms=self.cache_bytes_per_ms * threads,
            fresh_ms_per_byte=self.fresh_ms_per_byte / streams,
            cheap_ns=self.cheap_ns / threads,
            division_ns=self.division_ns / threads,
            transcendental_ns=self.transcendental_ns / threads,
            slow_ns=self.slow_ns / threads,
            reduction_ns=self.reduction_ns / threads,
            pooling_ns=self.pooling_ns / threads,
            gather_ns=self.gather_ns / threads,
            shuffle_ns=self.shuffle_ns / threads,
            half_shuffle_ns=self.half_shuffle_ns / threads,
        )

    def ns_of(self, function_class: str) -> float:
        """Nanoseconds per element of one function of a class (see :func:`class_of`)."""
        costs = {
            "cheap": self.cheap_ns,
            "division": self.division_ns,
            "transcendental": self.transcendental_ns,
            "slow": self.slow_ns,
            "reduction": self.reduction_ns,
            "pooling": self.pooling_ns,
            "gather": self.gather_ns,
            "shuffle": self.shuffle_ns,
            "half shuffle": self.half_shuffle_ns,
        }
        return costs[function_class]


CPU = Coefficients()

# Functions of torch by the class of their measured cost; the others are cheap. A composition is in the class of what it
# is made of.
_CLASSES = {
    "division": "div reciprocal sqrt rsqrt remainder fmod",
    "transcendental": "exp exp2 expm1 log log2 log10 log1p sin cos tan erf erfc sigmoid silu gelu mish softplus elu",
    "slow": "tanh pow asin acos atan atan2 sinh cosh asinh acosh atanh lgamma digamma",
}
CLASS_OF = {name: group for group, names in _CLASSES.items() for name in names.split()}


def class_of(function: str) -> str:
    """The class of an elementwise function of torch by its name: cheap, division, transcendental or slow.

    >>> class_of("exp"), class_of("add")
    ('transcendental', 'cheap')
    """
    return CLASS_OF.get(function, "cheap")


def gpu_coefficients(roofline: Roofline) -> Coefficients:
    """Coefficients for a GPU given by its float32 roofline: functions cost special-function slots."""
    cheap = 2e6 / roofline.peak_flops_per_ms
    return Coefficients(
        bytes_per_ms=roofline.bytes_per_ms,
        cache_bytes=0.0,
        cache_bytes_per_ms=roofline.bytes_per_ms,
        fresh_bytes=math.inf,
        fresh_ms_per_byte=0.0,
        launch_ms=roofline.launch_ms,
        cheap_ns=cheap,
        # A Hopper SM starts 128 float32 multiply-adds a cycle and 16 special functions (CUDA programming guide).
        division_ns=8 * cheap,
        transcendental_ns=8 * cheap,
        slow_ns=16 * cheap,
        reduction_ns=cheap,
        pooling_ns=cheap,
        gather_ns=cheap,
        shuffle_ns=cheap,
        half_shuffle_ns=cheap,
    )


def elementwise_ms(
    numel: int,
    read_bytes: float,
    written_bytes: float,
    work: Mapping[str, float],
    coefficients: Coefficients = CPU,
    *,
    launches: int = 1,
) -> float:
    """The time in ms of one fused pointwise or reducing kernel over ``numel`` elements (of the larger side of a
    reduction).

    ``read_bytes`` and ``written_bytes`` are those that really reach memory after fusion; ``work`` counts the
    functions applied to each element by class, as ``{"cheap": 3, "transcendental": 1}``; ``launches=0`` prices
    work that joins another kernel.

    >>> elementwise_ms(2**20, 2**22, 2**22, {"cheap": 1}) < elementwise_ms(2**20, 2**22, 2**22, {"slow": 1})
    True
    """
    moved = read_bytes + written_bytes
    rate = coefficients.cache_bytes_per_ms if moved <= coefficients.cache_bytes else coefficients.bytes_per_ms
    fresh = written_bytes * coefficients.fresh_ms_per_byte if written_bytes >= coefficients.fresh_bytes else 0.0
    compute_ns = numel * sum(count * coefficients.ns_of(group) for group, count in work.items())
    return launches * coefficients.launch_ms + moved / rate + fresh + compute_ns * 1e-6
