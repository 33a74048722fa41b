"""Calibration with made-up times: what is fitted, kept and used."""

import math
import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from torch_eqsat.cost import calibration
from torch_eqsat.cost.calibration import (
    CHEAP_FUNCTIONS,
    ELEMENTS,
    FRESH,
    FUNCTIONS,
    GATHER,
    KERNELS,
    POOL,
    REDUCTIONS,
    SIZES,
    WINDOW,
    calibrate,
    calibration_of,
    copied_sizes,
    default_calibration,
    fit,
    last_level_bytes,
    measure_bandwidths,
)
from torch_eqsat.cost.kernel import Kernel, Measurement
from torch_eqsat.cost.roofline import CPU, Coefficients, elementwise_ms, gpu_roofline
from torch_eqsat.cost.table import Context, Table

HERE = Context("cpu", "some CPU", 1, "2.14.1")
MACHINE = Coefficients(
    bytes_per_ms=50e6, cache_bytes=2 * 4 * 2**19, cache_bytes_per_ms=200e6, fresh_ms_per_byte=1e-6, cheap_ns=0.005,
    division_ns=0.05, transcendental_ns=0.2, slow_ns=1.0, reduction_ns=0.03, pooling_ns=0.3, gather_ns=0.4,
)  # fmt: skip
CLASS_OF = {name: group for group, names in FUNCTIONS.items() for name in names}
MEASURED = len(copied_sizes()) + 3 + len(CLASS_OF) + len(REDUCTIONS) + 2 + len(KERNELS)


def machine_ms(name: str, elements: int) -> float:
    """The time of a function on a machine that behaves as its coefficients say."""
    work = {"cheap": CHEAP_FUNCTIONS if name == "cheap" else 1.0} if name not in CLASS_OF else {CLASS_OF[name]: 1.0}
    if name in REDUCTIONS:
        return elementwise_ms(elements, 4 * elements, 0, {"reduction": 1, "cheap": 0.5}, MACHINE, launches=0)
    if name == POOL:
        work = {"pooling": WINDOW, "cheap": 1}
    if name == GATHER:
        work = {"gather": 1, "cheap": 1}
    return elementwise_ms(elements, 4 * elements, 4 * elements, work, MACHINE, launches=0)


def probe(name: str, elements: int, copies: int) -> Measurement:
    return Measurement(machine_ms(name, elements), 0.1, 5)


def copy(elements: int) -> Measurement:
    """Nothing that is written is fresh memory."""
    machine = replace(MACHINE, fresh_ms_per_byte=0.0)
    ms = elementwise_ms(elements, 4 * elements, 4 * elements, {"cheap": 1}, machine, launches=0)
    return Measurement(ms, 0.1, 5)


def measure(kernel: Kernel) -> Measurement:
    return Measurement(kernel.flops / 1e9, 0.0, 5)


def test_the_machine_is_found_again() -> None:
    names = ["relu", "cheap", *CLASS_OF, *REDUCTIONS, POOL, GATHER]
    times = {(name, ELEMENTS): machine_ms(name, ELEMENTS) for name in names}
    times["relu", FRESH] = machine_ms("relu", FRESH)
    found = fit(times, {size: machine_ms("relu", size) for size in SIZES}, CPU)
    for name in MACHINE.__dataclass_fields__.keys() - {"last_level_bytes"}:  # which is read
        assert getattr(found, name) == pytest.approx(getattr(MACHINE, name), rel=1e-6), name


def test_times_without_sense_give_no_negative_price() -> None:
    times = {(name, ELEMENTS): 1.0 for name in ("relu", "cheap", *CLASS_OF, *REDUCTIONS, POOL, GATHER)}
    found = fit(times | {("relu", FRESH): 1e-6}, dict.fromkeys(SIZES, 1e-6), CPU)
    assert all(value >= 0 and math.isfinite(value) for value in vars(found).values())


def test_what_is_fitted_is_kept_for_this_context_alone(tmp_path: Path) -> None:
    lines: list[str] = []
    with Table(HERE, tmp_path / "t") as table:
        assert calibration_of(table) == default_calibration(HERE)
        fitted = calibrate(table, probe, copy, measure, lines.append)
        empty = table.lookup_many(kernel.key for kernel in KERNELS)
    with Table(HERE, tmp_path / "t") as again, Table(Context("cpu", "some CPU", 2, "2.14.1"), tmp_path / "t") as other:
        assert calibration_of(again) == fitted != default_calibration(HERE)
        assert calibration_of(other) == default_calibration(other.context)
    assert fitted.roofline.peak_flops_per_ms == pytest.approx(1e9)
    assert empty == {}
    assert len(lines) == MEASURED
    assert lines[-1].startswith(f"{len(lines)}/{len(lines)} ")


def test_bandwidths_alone_are_measured_where_nothing_is_known(tmp_path: Path) -> None:
    sizes: list[int] = []

    def noted(elements: int) -> Measurement:
        sizes.append(elements)
        return copy(elements)

    with Table(HERE, tmp_path / "t") as table:
        measure_bandwidths(table, noted)
        found = calibration_of(table).coefficients
        measure_bandwidths(table, noted)
    assert sizes == list(copied_sizes())
    assert found.bytes_per_ms == pytest.approx(MACHINE.bytes_per_ms, rel=0.2)
    assert found.cache_bytes_per_ms == pytest.approx(MACHINE.cache_bytes_per_ms, rel=0.2)
    assert found.cache_bytes == MACHINE.cache_bytes
    assert found.slow_ns == CPU.slow_ns


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in place of the system's description of its caches."""
    monkeypatch.setattr(calibration, "CACHES", tmp_path)
    last_level_bytes.cache_clear()
    yield tmp_path
    last_level_bytes.cache_clear()


def describe(folder: Path, index: int, level: str, kind: str, size: str) -> None:
    (entry := folder / f"index{index}").mkdir()
    for name, text in (("level", level), ("type", kind), ("size", size)):
        (entry / name).write_text(text + "\n")


def test_the_last_level_is_read_as_the_system_describes_it(caches: Path) -> None:
    """It was asked for by a name that Python does not know, and was 0 everywhere."""
    describe(caches, 0, "1", "Data", "48K")
    describe(caches, 1, "1", "Instruction", "32K")
    describe(caches, 2, "3", "Unified", "32768K")
    describe(caches, 3, "4", "Unified", "much")
    assert last_level_bytes() == 32 << 20
    assert copied_sizes() == (*SIZES, 2**24)


def test_a_last_level_that_others_share_holds_what_is_moved_at_its_speed(caches: Path) -> None:
    """A virtual machine on a socket of 300 MiB: weights of 46 MB were taken for resident, and came from memory."""
    describe(caches, 0, "3", "Unified", "307200K")
    sizes = copied_sizes()
    assert sizes == (*SIZES, 2**23, 2**24, 2**25, 2**26)

    def held(*rates: float) -> float:
        return calibration._bandwidths(
            {n: 8 * n / (1e6 * gb) for n, gb in zip(sizes, rates, strict=True)}, CPU
        ).last_level_bytes

    found = 74, 72, 40, 25, 24, 24, 24, 23, 11.7, 11.6, 10.8
    assert held(*found) == 64 << 20
    assert held(*found[:-2], 22, 10.8) == 64 << 20  # one that was larger was faster by chance
    assert held(*found[:-3], 23, 23, 10.8) == 300 << 20


def test_a_last_level_is_whole_beside_a_fast_second_one(caches: Path) -> None:
    describe(caches, 0, "3", "Unified", "32768K")
    rates = dict(zip(copied_sizes(), (120, 120, 110, 69, 69, 69, 60, 47), strict=True))
    assert calibration._bandwidths({n: 8 * n / (1e6 * gb) for n, gb in rates.items()}, CPU).last_level_bytes == 32 << 20


def test_a_system_that_describes_no_caches(caches: Path) -> None:
    assert last_level_bytes() == 0.0
    assert copied_sizes() == SIZES


def calibrate_at_once(path: str, number: int, gate: "multiprocessing.synchronize.Barrier", found: Any) -> None:
    """One of several processes that find no bandwidths, each of which measures others."""
    gate.wait(60)
    with Table(HERE, path) as table:
        measure_bandwidths(table, lambda elements: Measurement(elements * (1 + number) * 1e-6, 0.0, 5))
        found.put((number, calibration_of(table).coefficients.bytes_per_ms))


def test_processes_that_start_together_agree(tmp_path: Path) -> None:
    """Each had its own numbers, and so its own plans, of which only one was ever found again."""
    spawn = multiprocessing.get_context("spawn")
    gate, found = spawn.Barrier(3), spawn.Queue()
    processes = [
        spawn.Process(target=calibrate_at_once, args=(str(tmp_path / "t"), number, gate, found)) for number in range(3)
    ]
    for process in processes:
        process.start()
    answers = dict(found.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(60)
    assert len(answers) == 3 and len(set(answers.values())) == 1


def test_what_another_process_stored_first_stays(tmp_path: Path) -> None:
    with Table(HERE, tmp_path / "t") as table, Table(HERE, tmp_path / "t") as other:
        table.agree_on_coefficients({"fusible cheap_ns": 7.0}, 0.0, 1)
        other.agree_on_coefficients({"fusible cheap_ns": 8.0}, 0.0, 1)
        assert table.coefficients() == other.coefficients() == {"fusible cheap_ns": 7.0}
        other.store_coefficients({"fusible cheap_ns": 9.0}, 0.0, 1)
        assert table.coefficients() == {"fusible cheap_ns": 9.0}


def test_provenance_is_stored(tmp_path: Path) -> None:
    with Table(HERE, tmp_path / "t") as table:
        calibrate(table, probe, copy, measure, lambda line: None)
        rows = table._database.execute("SELECT DISTINCT spread, samples, measured_at > 0 FROM coefficient").fetchall()
    assert rows == [(0.1, MEASURED, 1)]


def test_a_damaged_table_leaves_the_defaults(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Table(HERE, tmp_path / "t") as table:
        table.store_coefficients({"fusible cheap_ns": 7.0}, 0.0, 1)
        table._database.execute("DROP TABLE coefficient")
        assert calibration_of(table) == default_calibration(HERE)
    assert "kept in memory" in caplog.text


def test_defaults_are_those_of_the_device() -> None:
    eight = default_calibration(Context("cpu", "some CPU", 8, "2.14.1"))
    assert eight.coefficients == Coefficients().for_threads(8)
    h100 = default_calibration(Context("NVIDIA H100 80GB HBM3", "some CPU", 8, "2.14.1"))
    assert h100.roofline == gpu_roofline("H100")
    assert h100.coefficients.launch_ms == h100.roofline.launch_ms
    assert default_calibration(Context("a new card", "some CPU", 8, "2.14.1")).roofline == gpu_roofline("H200")
