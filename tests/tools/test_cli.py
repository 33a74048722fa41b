"""The command line, with functions in place of compiled kernels."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

from torch_eqsat.cost.calibration import calibration_of
from torch_eqsat.cost.kernel import Kernel, Measurement
from torch_eqsat.cost.measure.timer import CpuTimer
from torch_eqsat.cost.table import Table
from torch_eqsat.errors import MeasurementError
from torch_eqsat.tools import cli as command


class FakeProbe:
    """Every element takes a nanosecond."""

    def __init__(self, timer: CpuTimer) -> None:
        pass

    def __call__(self, name: str, elements: int, copies: int) -> Measurement:
        return Measurement(elements * 1e-6, 0.0, 5)


def fake_measure(kernel: Kernel, timer: CpuTimer) -> Measurement:
    return Measurement(kernel.flops / 1e9, 0.0, 5)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_EQSAT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr(command, "CompiledProbe", FakeProbe)
    monkeypatch.setattr(command, "measure", fake_measure)
    monkeypatch.setattr(command, "time_copy", lambda elements: Measurement(elements * 1e-6, 0.0, 5))
    return tmp_path


def test_calibrate_stores_and_shows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["show"]) == 0
    assert "(measured)" not in capsys.readouterr().out
    assert command.main(["calibrate"]) == 0
    written = capsys.readouterr()
    assert "fusible bytes_per_ms: 8.001e+06 (measured)" in written.out
    assert "relu" in written.err
    with Table(command.context_of("cpu")) as table:
        assert calibration_of(table).roofline.peak_flops_per_ms == pytest.approx(1e9)


def test_a_busy_machine_is_not_calibrated(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def busy(kernel: Kernel, timer: CpuTimer) -> Measurement:
        raise MeasurementError("half of the samples took over 3 times the fastest")

    monkeypatch.setattr(command, "measure", busy)
    assert command.main(["calibrate"]) == 1
    assert "nothing is stored: half of the samples" in capsys.readouterr().err
    with Table(command.context_of("cpu")) as table:
        assert table.coefficients() == {}


@pytest.mark.parametrize("arguments", [[], ["calibrate", "--threads", "0"], ["measure"]])
def test_bad_arguments_are_refused(folder: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        command.main(arguments)
    assert refused.value.code == 2
    assert not list(folder.iterdir())


def test_the_package_is_the_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch_eqsat.__main__", raising=False)  # a test may have imported it
    monkeypatch.setattr("sys.argv", ["torch-eqsat", "show"])
    with pytest.raises(SystemExit) as done:
        runpy.run_module("torch_eqsat", run_name="__main__")
    assert done.value.code == 0
