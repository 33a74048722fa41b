"""Analytic prices: lower bounds for heavy kernels, and fusible work by bytes and functions."""

import pytest

from torch_eqsat.cost.kernel import Kernel
from torch_eqsat.cost.roofline import (
    CPU,
    GPUS,
    MIB,
    Roofline,
    class_of,
    cpu_roofline,
    elementwise_ms,
    gpu_coefficients,
    gpu_roofline,
)

BIG = Kernel.matmul((1024, 1024), (1024, 1024))
GEMV = Kernel.matmul((1, 4096), (4096, 4096))


def test_a_bound_of_compute_or_of_memory() -> None:
    roofline = Roofline(peak_flops_per_ms=1e6, bytes_per_ms=1e6, launch_ms=0.5)
    assert roofline.lower_estimate_ms(BIG) == 0.5 + BIG.flops / 1e6
    assert roofline.lower_estimate_ms(GEMV) == 0.5 + GEMV.bytes / 1e6


def test_small_operands_move_at_the_speed_of_the_cache() -> None:
    small = Kernel.matmul((1, 8), (8, 8))
    roofline = Roofline(1e12, 1.0, 0.0, cache_bytes=small.bytes, cache_bytes_per_ms=100.0)
    assert roofline.lower_estimate_ms(small) == small.bytes / 100.0
    assert roofline.lower_estimate_ms(GEMV) == GEMV.bytes


@pytest.mark.parametrize("kernel", [BIG, GEMV], ids=["compute", "memory"])
def test_more_threads_are_never_slower(kernel: Kernel) -> None:
    times = [cpu_roofline(threads).lower_estimate_ms(kernel) for threads in (1, 2, 8)]
    assert times == sorted(times, reverse=True)


def test_times_measured_below_the_bound_raise_it() -> None:
    roofline = cpu_roofline()
    ms = roofline.lower_estimate_ms(BIG) / 10
    fitted = roofline.fitted([(BIG, ms), (GEMV, 1e6)])
    assert fitted.lower_estimate_ms(BIG) <= ms + fitted.launch_ms
    assert fitted.bytes_per_ms >= roofline.bytes_per_ms
    assert roofline.fitted([(BIG, 1e6), (GEMV, 1e6)]) == roofline


def test_cards_are_found_by_name() -> None:
    assert gpu_roofline("NVIDIA H100 80GB HBM3", "bfloat16") == gpu_roofline("H100", "bfloat16")
    assert gpu_roofline("NVIDIA A100-SXM4-80GB") == gpu_roofline("A100")
    assert gpu_roofline("NVIDIA L40S") is None
    assert all(gpu_roofline(name, dtype) for name, gpu in GPUS.items() for dtype in gpu.tflops)


def test_a_big_product_on_a_card() -> None:
    """4096³ in bfloat16 on an H100: 137 Gflop at 989 Tflop/s is 0.139 ms; a multiply-add counts twice on both sides."""
    roofline = gpu_roofline("H100", "bfloat16")
    assert roofline is not None
    product = Kernel.matmul((4096, 4096), (4096, 4096), dtype="bfloat16", device="cuda")
    assert roofline.lower_estimate_ms(product) == pytest.approx(0.139 + roofline.launch_ms, rel=1e-2)


def test_winograd_is_allowed_for_on_a_gpu_only() -> None:
    roofline = Roofline(1e6, 1e12, 0.0)
    here, there = (Kernel.conv((1, 8, 32, 32), (8, 8, 3, 3), device=device) for device in ("cpu", "cuda"))
    assert roofline.lower_estimate_ms(here) == 2.25 * roofline.lower_estimate_ms(there)


def test_functions_cost_by_class() -> None:
    classes = ["add", "div", "exp", "tanh"]
    times = [elementwise_ms(2**20, 2**22, 2**22, {class_of(name): 1}) for name in classes]
    assert times == sorted(times)
    assert len(set(times)) == 4
    with pytest.raises(KeyError):
        elementwise_ms(1, 4, 4, {"unheard of": 1})


def test_bytes_cost_by_where_they_go() -> None:
    cached, streamed = (elementwise_ms(0, size, 0, {}) / size for size in (MIB, 16 * MIB))
    assert cached < streamed
    large, fresh = (elementwise_ms(0, 0, size, {}) / size for size in (31 * MIB, 32 * MIB))
    assert fresh > 5 * large
    assert elementwise_ms(0, 0, 0, {}, launches=0) == 0.0
    assert elementwise_ms(0, 0, 0, {}) == CPU.launch_ms


def test_threads_and_cards_make_it_faster() -> None:
    job = (2**24, 2**26, 2**26, {"transcendental": 2.0})
    one = elementwise_ms(*job)
    assert elementwise_ms(*job, CPU.for_threads(4)) < one
    assert CPU.for_threads(1) == CPU
    roofline = gpu_roofline("H100")
    assert roofline is not None
    assert elementwise_ms(*job, gpu_coefficients(roofline)) < one / 100
