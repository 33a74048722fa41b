"""What prices know of a machine: coefficients of fusible work and a roofline, measured once or by default.

:func:`fit` finds them from the times of a few small functions (see `probes.py`) and heavy kernels; the table keeps them
beside the measured kernels, by the same context.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import fmean, geometric_mean, median
from typing import TypeVar

from torch_eqsat.cost.kernel import Kernel, Measurement
from torch_eqsat.cost.roofline import Coefficients, Roofline, cpu_roofline, gpu_coefficients, gpu_roofline
from torch_eqsat.cost.table import Context, Table

SIZES = (2**16, 2**17, 2**18, 2**19, 2**20, 2**21, 2**22)
"""Elements of the copies that the caches' bandwidths are found from: 0.5 MiB read and written in all to 32 MiB."""

FASTER = 1.2
"""How much faster than memory a copy is that a cache holds, at least: an L3 of 69 GB/s stands beside 47 of memory."""

MOST_COPIED = 2**26
"""The largest copy, where a cache is larger than any other."""

FRESH = 2**23
"""Elements of a result that is fresh memory in each call."""

FUNCTIONS: Mapping[str, Sequence[str]] = {
    "division": ("reciprocal", "sqrt"),
    "transcendental": ("exp", "sigmoid", "log", "erf"),
    "slow": ("tanh", "pow"),
}
"""The functions that stand for a class."""

REDUCTIONS, POOL, GATHER = ("sum of rows", "sum of columns", "maximum of rows"), "average pool", "gather of columns"
"""What stands for reductions, each of which reads all and writes next to nothing, for pools of :data:`WINDOW` elements,
and for gathers along the innermost axis."""

WINDOW = 9

ELEMENTS, COPIES = 2**14, 8
"""Each function is timed over so many elements, as often in one graph, all of which stays in the L2 cache."""

CHEAP_FUNCTIONS = 6
"""Of how many cheap functions the probe "cheap" is made."""

KERNELS = (
    Kernel.matmul((1, 512), (512, 2048), weight=True),
    Kernel.matmul((1, 2048), (2048, 1000), turned=True),
    Kernel.matmul((256, 1024), (1024, 1024), weight=True),
    Kernel.conv((1, 1024, 1, 256), (1024, 1024, 1, 1), weight=True),
    Kernel.conv((1, 256, 28, 28), (256, 256, 3, 3), padding=1, weight=True),
)
"""Kernels that come near to the machine's bandwidth and peak."""

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
"""Where Linux describes the caches of a core."""

_FLOAT = 4
_LEAST_NS = 1e-4
_K = TypeVar("_K")

Probe = Callable[[str, int, int], Measurement]
"""Times one copy of a function over so many float32 elements, in a graph of so many copies."""

Copy = Callable[[int], Measurement]
"""Times reading so many float32 elements and writing as many."""


@dataclass(frozen=True)
class Calibration:
    """The numbers that prices are made of; ``roofline`` is that of float32."""

    coefficients: Coefficients = field(default_factory=Coefficients)
    roofline: Roofline = field(default_factory=cpu_roofline)


def default_calibration(context: Context) -> Calibration:
    """The numbers of a device that was not calibrated; an unknown card gets those of the fastest known one."""
    if context.device == "cpu":
        return Calibration(Coefficients().for_threads(context.threads), cpu_roofline(context.threads))
    card = gpu_roofline(context.device) or gpu_roofline("H200")
    assert card is not None
    return Calibration(gpu_coefficients(card), card)


def calibration_of(table: Table) -> Calibration:
    """What the table holds for its context, the rest by default."""
    default = default_calibration(table.context)
    known = table.coefficients()
    groups = {}
    for group, value in (("fusible", default.coefficients), ("roofline", default.roofline)):
        names = asdict(value)
        groups[group] = {name: known[f"{group} {name}"] for name in names if f"{group} {name}" in known}
    return Calibration(
        replace(default.coefficients, **groups["fusible"]), replace(default.roofline, **groups["roofline"])
    )


def calibrate(
    table: Table,
    probe: Probe,
    copy: Copy,
    measure: Callable[[Kernel], Measurement],
    say: Callable[[str], None],
) -> Calibration:
    """Measure, fit and store, with a line of progress for each time."""
    sizes = copied_sizes()
    names = ("relu", "cheap", *(name for names in FUNCTIONS.values() for name in names), *REDUCTIONS, POOL, GATHER)
    wanted = [("relu", FRESH, 1), *((name, ELEMENTS, COPIES) for name in names)]
    total = len(sizes) + len(wanted) + len(KERNELS)
    done = itertools.count(1)
    copies: dict[int, Measurement] = {}
    for size in sizes:
        copies[size] = found = copy(size)
        say(f"{next(done)}/{total} copy of {size} elements: {found.ms * 1e3:.2f} µs")
    times: dict[tuple[str, int], Measurement] = {}
    for name, elements, together in wanted:
        times[name, elements] = found = probe(name, elements, together)
        say(f"{next(done)}/{total} {name} of {elements} elements: {found.ms * 1e3:.2f} µs")
    kernels = []
    for kernel in KERNELS:
        found = measure(kernel)
        kernels.append((kernel, found.ms))
        say(f"{next(done)}/{total} {kernel.key}: {found.ms:.4f} ms")
    default = default_calibration(table.context)
    coefficients = fit(_ms(times), _ms(copies), default.coefficients)
    fitted = Calibration(coefficients, default.roofline.fitted(kernels))
    spread = max(found.spread for found in (*times.values(), *copies.values()))
    values = {f"fusible {name}": value for name, value in asdict(fitted.coefficients).items()}
    values |= {f"roofline {name}": value for name, value in asdict(fitted.roofline).items()}
    table.store_coefficients(values, spread, total)
    return fitted


def _ms(found: Mapping[_K, Measurement]) -> dict[_K, float]:
    return {key: value.ms for key, value in found.items()}


def copied_sizes() -> tuple[int, ...]:
    """Elements of the copies that bandwidths are found from. The last is beyond all caches: it moves four times as
    much as the last level holds. One of 32 MiB, which an L3 holds, ran at 69 GB/s, one of 128 MiB at 47. Those that
    a large last level should hold say how much of it this machine has (see `_bandwidths`)."""
    if not last_level_bytes():
        return SIZES
    beyond = min(MOST_COPIED, 2 ** math.ceil(math.log2(max(1.0, 4 * last_level_bytes() / (2 * _FLOAT)))))
    beyond = max(beyond, 2 * SIZES[-1])
    held = itertools.takewhile(lambda n: 2 * _FLOAT * n <= last_level_bytes(), (SIZES[-1] << k for k in range(1, 32)))
    return (*SIZES, *(size for size in held if size < beyond), beyond)


def measure_bandwidths(table: Table, copy: Copy) -> None:
    """Measure and store the bandwidths of memory and caches where the table has no coefficients at all: they differ
    most between machines (an L3 of 25 GB/s here, of 98 there), and need no code generation. Half a second in all. Of
    processes that do so at once the first one is believed: plans depend on these numbers."""
    if table.coefficients():
        return
    found = {size: copy(size) for size in copied_sizes()}
    fitted = _bandwidths(_ms(found), default_calibration(table.context).coefficients)
    names = ("bytes_per_ms", "cache_bytes", "cache_bytes_per_ms", "last_level_bytes")
    values = {f"fusible {name}": getattr(fitted, name) for name in names}
    table.agree_on_coefficients(values, max(value.spread for value in found.values()), len(found))


def fit(times: Mapping[tuple[str, int], float], copies: Mapping[int, float], default: Coefficients) -> Coefficients:
    """Coefficients from times in ms, by function and elements, and of ``copies`` by elements; ``default`` has what no
    time tells."""
    plain = times["relu", ELEMENTS]
    cheap = _ns(times["cheap", ELEMENTS] - plain, ELEMENTS * (CHEAP_FUNCTIONS - 1))
    classes = {
        group: geometric_mean([_ns(times[name, ELEMENTS] - plain, ELEMENTS) + cheap for name in names])
        for group, names in FUNCTIONS.items()
    }

    memory = _bandwidths(copies, replace(default, cheap_ns=cheap))
    written = _FLOAT * FRESH
    paged = times["relu", FRESH] - 2 * written / memory.bytes_per_ms - cheap * FRESH * 1e-6
    return replace(
        memory,
        fresh_bytes=float(written),
        fresh_ms_per_byte=max(0.0, paged / written),
        division_ns=classes["division"],
        transcendental_ns=classes["transcendental"],
        slow_ns=classes["slow"],
        reduction_ns=fmean(_ns(times[name, ELEMENTS] - plain / 2, ELEMENTS) for name in REDUCTIONS),
        pooling_ns=_ns(times[POOL, ELEMENTS] - plain, ELEMENTS * WINDOW),
        gather_ns=_ns(times[GATHER, ELEMENTS] - plain, ELEMENTS),
    )


def _bandwidths(times: Mapping[int, float], default: Coefficients) -> Coefficients:
    """``default`` with the bandwidths found from times in ms of copies, by elements; the last is beyond all caches.

    A last level of which a copy of half its size is at the speed of memory is shared with others: a virtual machine on
    a socket of 300 MiB moved 64 MiB at 23 GB/s, 128 MiB at 11.7 and 512 MiB at 10.8. What it holds is what was moved
    faster, and all that is less."""

    def rate(size: int) -> float:
        """Bytes per ms of a copy, the function's own time aside."""
        own = default.cheap_ns * size * 1e-6
        return 2 * _FLOAT * size / max(times[size] - own, times[size] / 2)

    *small, last = times
    memory = rate(last)
    usual = max(memory, median(rate(size) for size in small[: len(SIZES)]))
    largest = max([size for size in small if rate(size) >= math.sqrt(memory * usual)], default=small[0])
    # The mean over the levels of the cache.
    cache = max(memory, geometric_mean([rate(size) for size in small if size <= largest]))
    faster = itertools.takewhile(lambda size: rate(size) >= FASTER * memory, small)
    held = 2.0 * _FLOAT * max(faster, default=0)
    level = held if 0 < 2 * held < last_level_bytes() else last_level_bytes()
    found = {"bytes_per_ms": memory, "cache_bytes": 2.0 * _FLOAT * largest, "cache_bytes_per_ms": cache}
    return replace(default, **found, last_level_bytes=level)


@cache
def last_level_bytes() -> float:
    """The size of the last level of this machine's cache as Linux gives it; 0 where the system does not say.

    sysconf is not asked: Python has no name for this size, and a virtual machine gave 384 MiB instead of 32."""
    sizes = {}
    for entry in CACHES.glob("index*"):
        try:
            level, size, kind = (
                int((entry / "level").read_text()),
                _bytes(entry / "size"),
                (entry / "type").read_text(),
            )
        except (OSError, ValueError):
            continue
        if kind.strip() != "Instruction":
            sizes[level] = size
    return sizes[max(sizes)] if sizes else 0.0


def _bytes(file: Path) -> float:
    """A size such as 32768K in bytes. Raises ValueError for anything else."""
    text = file.read_text().strip()
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return float(int(text[:-1]) * units[text[-1]]) if text[-1:] in units else float(int(text))


def _ns(ms: float, elements: int) -> float:
    return max(_LEAST_NS, ms * 1e6 / elements)
