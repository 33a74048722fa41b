"""Heavy kernels: what is called, and that it computes the right thing."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.cost.measure.impatient import Impatient
from torch_eqsat.cost.kernel import Kernel, Measurement
from torch_eqsat.cost.measure import kernels
from torch_eqsat.cost.measure.kernels import calls_of, context_of, measure
from torch_eqsat.cost.measure.timer import CpuTimer
from torch_eqsat.errors import MeasurementError

SMALL = [
    Kernel.matmul((8, 16), (16, 12)),
    Kernel.matmul((8, 16), (16, 12), bias=True),
    Kernel.matmul((8, 16), (16, 12), weight=True),
    Kernel.matmul((8, 16), (16, 12), weight=True, bias=True),
    Kernel.matmul((8, 16), (16, 12), weight=True, bias=True, dtype="bfloat16"),
    Kernel.matmul((8, 16), (16, 12), weight=True, dtype="float64"),
    Kernel.matmul((8, 16), (16, 12), bias=True, turned=True),
    Kernel.matmul((2, 8, 16), (2, 16, 12)),
    Kernel.matmul((2, 8, 16), (2, 16, 12), turned=True),
    Kernel.conv((1, 4, 9, 9), (6, 2, 3, 3), groups=2, padding=1, stride=2, bias=True),
    Kernel.conv((1, 4, 9, 9), (6, 2, 3, 3), groups=2, padding=1, stride=2, bias=True, weight=True),
    Kernel.conv((1, 4, 9, 9), (6, 4, 1, 1), weight=True),
    Kernel.conv((1, 4, 9), (6, 4, 3), dilation=2, weight=True),
    Kernel.conv((1, 4, 9, 9, 9), (6, 4, 3, 3, 3), bias=True),
    Kernel.conv((1, 4, 9, 9, 9), (6, 4, 3, 3, 3), weight=True),
    Kernel.sdpa((1, 2, 8, 16), (1, 2, 12, 16), (1, 2, 12, 16)),
    Kernel.sdpa((1, 2, 8, 16), (1, 2, 8, 16), (1, 2, 8, 16), causal=True),
]


def result(kernel: Kernel) -> torch.Tensor:
    out = calls_of(kernel)[0]()
    return out[0] if isinstance(out, tuple) else out  # type: ignore[return-value, index]


@pytest.mark.parametrize("kernel", SMALL, ids=lambda kernel: kernel.key)
def test_small_kernels_are_measured(kernel: Kernel) -> None:
    clock = itertools.count(step=0.001).__next__  # 1 ms passes between two readings, whatever else runs
    measured = measure(kernel, CpuTimer(budget_ms=2.0, clock=clock))
    assert measured.ms == pytest.approx(1.0)
    assert measured.repeats >= CpuTimer.few
    assert result(kernel).shape == kernel.out_shape


@pytest.mark.parametrize("kernel", [k for k in SMALL if k.weight], ids=lambda kernel: kernel.key)
def test_packed_and_plain_compute_the_same(kernel: Kernel) -> None:
    """Both draw the same random operands, so a wrong order of arguments shows."""
    plain = Kernel(**{**vars(kernel), "weight": False})
    tolerance = 0.1 if kernel.dtype == "bfloat16" else 1e-4
    torch.testing.assert_close(result(kernel), result(plain), atol=tolerance, rtol=tolerance)


def test_random_numbers_of_the_program_stay() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    measure(SMALL[0], Impatient())
    assert torch.equal(torch.get_rng_state(), before)


def test_measuring_in_the_middle_of_a_compilation() -> None:
    """A graph pass runs under fake tensors, and perhaps under autocast and with gradients on."""
    seen = []

    class Timer(Impatient):
        def time(self, calls: Sequence[Callable[[], object]]) -> Measurement:
            seen.append(calls[0]())
            return super().time(calls)

    with FakeTensorMode(), torch.autocast("cpu", dtype=torch.bfloat16), torch.enable_grad():
        measure(SMALL[0], Timer())
    assert type(seen[0]) is torch.Tensor
    assert seen[0].dtype == torch.float32


def test_a_cold_weight_rotates_through_more_than_a_cache_holds() -> None:
    kernel = Kernel.matmul((1, 512), (512, 512))
    assert len(calls_of(kernel)) == 5
    assert len(calls_of(replace(kernel, cold=True))) == 96
    assert replace(kernel, cold=True).key == f"{kernel.key} cold"


def test_times_that_differ_too_much_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_REFUSED", 1.0)

    class Timer(Impatient):
        def time(self, calls: Sequence[Callable[[], object]]) -> Measurement:
            self.timed += 1
            return Measurement(1.0, 1.5, 9)

    timer = Timer()
    with pytest.raises(MeasurementError, match=r"matmul float32 cpu 8x16 16x12: .* 2\.5 times"):
        measure(SMALL[0], timer)
    assert timer.timed == 2


def test_weights_rotate_unless_they_fill_the_cache_alone() -> None:
    assert len(calls_of(Kernel.matmul((1, 8), (8, 8)))) == 8
    assert len(calls_of(Kernel.matmul((1, 2048), (2048, 2048)))) == 1


def test_a_timer_of_another_device_is_refused() -> None:
    with pytest.raises(ValueError, match="cuda"):
        measure(Kernel.matmul((2, 2), (2, 2), device="cuda"), Impatient())


def test_the_context_names_what_matters() -> None:
    context = context_of("cpu")
    assert context.device == "cpu"
    assert context.threads == torch.get_num_threads()
    assert context.torch.split()[0] == torch.__version__
    assert context.cpu


def test_operands_beyond_memory_are_refused() -> None:
    with pytest.raises(MemoryError, match="GiB"):
        measure(Kernel.matmul((10**7, 10**3), (10**3, 10**7)), Impatient())


def test_a_disturbed_kernel_is_timed_again() -> None:
    answers = [Measurement(2.0, 0.5, 9), Measurement(1.0, 0.5, 9), Measurement(3.0, 0.0, 9)]

    class Timer(Impatient):
        def time(self, calls: Sequence[Callable[[], object]]) -> Measurement:
            return answers.pop(0)

    assert measure(SMALL[0], Timer()).ms == 1.0
    assert measure(SMALL[0], Timer()).ms == 3.0


class Both(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(4, 8, 3)
        self.linear = torch.nn.Linear(6, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(self.conv(x))
        return torch.nn.functional.scaled_dot_product_attention(y, y, y)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True], ids=["plain", "frozen"])
def test_inductor_still_calls_these_operators(frozen: bool) -> None:
    """What is measured must be what runs: a new torch that calls other operators shows here."""
    from torch._inductor import config
    from torch._inductor.utils import run_and_get_code

    torch._dynamo.reset()
    with torch.no_grad(), config.patch(freezing=frozen):
        _, sources = run_and_get_code(torch.compile(Both().eval()), torch.randn(1, 4, 8, 8))
    code = "".join(sources)
    packed = ["mkl._mkl_linear.default(", "mkldnn._convolution_pointwise.default("]
    plain = ["extern_kernels.addmm(", "extern_kernels.convolution("]
    for name in packed if frozen else plain:
        assert name in code
    for name in plain if frozen else packed:
        assert name not in code
    assert "_scaled_dot_product_flash_attention_for_cpu" in code


def test_the_context_names_a_lower_precision() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision
    assert "bf16" not in context_of("cpu").torch
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        assert context_of("cpu").torch.endswith(" matmul bf16")
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


def test_the_context_names_the_libraries_that_run_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def built_with(version: str) -> str:
        monkeypatch.setattr(torch.__config__, "show", lambda: f"built with:\n  - Intel(R) MKL-DNN v{version}\n  - CUDA")
        return context_of("cpu").torch

    assert built_with("3.12.0") == f"{torch.__version__} Intel(R) MKL-DNN v3.12.0"
    assert built_with("3.13.0") != built_with("3.12.0")
