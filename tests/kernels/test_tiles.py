"""The compiled kernels compute what the calls do that they stand for, to the last bit."""

import logging
import threading

import pytest
import torch
from torch._inductor.codecache import CppPythonBindingsCodeCache

from torch_eqsat.kernels import tiles
from torch_eqsat.kernels.calls import JOIN_TILES, SPLIT_TILES, flat, matrix, packed, step_names
from torch_eqsat.kernels.source import MOST_OPERANDS
from torch_eqsat.rewrites import winograd

SAME = ((1.0,),)
FOUR = winograd.transforms(winograd.FOUR_POINTS, 3)
SIX = winograd.transforms(winograd.SIX_POINTS, 3)

pytestmark = pytest.mark.slow


def image(*shape, seed=0):
    """Channels-last, with numbers of all kinds."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    x.view(-1)[:: 37 * 41] = float("inf")
    x.view(-1)[5 :: 31 * 43] = float("nan")
    x.view(-1)[7::11] = -0.0
    return x.to(memory_format=torch.channels_last)


def equal(a, b):
    """Bit by bit, but for what kind of NaN it is."""
    a, b = (x.contiguous().masked_fill(x.isnan(), float("nan")).view(torch.int32) for x in (a, b))
    return torch.equal(a, b)


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def split(x, rows, columns, corner, step, count):
    expected = SPLIT_TILES(x, flat(rows), len(rows), flat(columns), len(columns), corner, step, count)
    out = torch.empty_like(expected).to(memory_format=torch.channels_last)
    numbers = tiles.split_numbers(x.shape, x.stride(), (*corner, *step), out.shape[2:])
    tiles.split_kernel(tiles.spelled(rows, columns))(x, out, *numbers, torch.get_num_threads())
    return out, expected


def join_into(out, x, operands, rows, columns, steps):
    tensors = (x, out, *operands, *[out] * (MOST_OPERANDS - len(operands)))
    numbers = tiles.join_numbers(x.shape[2:], out.shape, steps)
    tiles.join_kernel(tiles.spelled(rows, columns))(*tensors, *numbers, torch.get_num_threads())


@pytest.mark.parametrize("shape", [(1, 64, 56, 56), (2, 20, 9, 13), (3, 33, 4, 5), (0, 16, 8, 8)])
@pytest.mark.parametrize(
    ("rows", "columns", "corner", "step"),
    [(SIX[2], SIX[2], (1, 1), (4, 4)), (SAME, FOUR[2], (0, 2), (1, 2)), (FOUR[2], SAME, (1, 0), (2, 1))],
    ids=["both", "columns", "rows"],
)
def test_split(shape, rows, columns, corner, step, threads):
    count = [-(-size // by) for size, by in zip(shape[2:], step, strict=True)]
    assert equal(*split(image(*shape), rows, columns, corner, step, count))


def test_split_of_a_part():
    """A slice of an image has gaps between its rows, and one of its channels between its pixels."""
    whole = image(2, 48, 12, 12)
    for part in (whole[:, :, 2:9, 1:11], whole[:, 16:36]):
        assert equal(*split(part, SIX[2], SIX[2], (1, 1), (4, 4), [3, 3]))


@pytest.mark.parametrize("steps", [(), ("add", "relu"), ("sub", "mul", "mul", "add", "add_image", "relu")])
@pytest.mark.parametrize("shape", [(1, 64, 56, 55), (2, 20, 9, 13), (0, 16, 4, 4)])
@pytest.mark.parametrize(
    ("rows", "columns"), [(SIX[0], SIX[0]), (SAME, FOUR[0]), (FOUR[0], SAME)], ids=["both", "columns", "rows"]
)
def test_join(shape, rows, columns, steps, threads):
    images, channels, height, width = shape
    down, across = -(-height // len(rows)), -(-width // len(columns))
    x = image(images, channels * len(rows[0]) * len(columns[0]), down, across)
    operands = [
        image(*shape, seed=1) if name == "add_image" else torch.randn(channels, 1, 1)
        for name in steps
        if name != "relu"
    ]
    arguments = (flat(rows), len(rows), flat(columns), len(columns), [height, width], packed(steps), operands)
    expected = JOIN_TILES(x, *arguments)
    out = torch.empty_like(expected).to(memory_format=torch.channels_last)
    join_into(out, x, operands, rows, columns, packed(steps))
    assert equal(out, expected)


def forget():
    for cached in (tiles._load_split, tiles._load_join, tiles.split_kernel, tiles.join_kernel):
        cached.cache_clear()


def test_a_compiler_that_failed_is_asked_again(monkeypatch):
    """What fails beside the compilation may be a matter of that thread."""
    matrices = tiles.spelled(SIX[2], SIX[2])
    forget()
    with monkeypatch.context() as patched:
        patched.setattr(CppPythonBindingsCodeCache, "load_pybinding", lambda *_, **__: 1 / 0)
        tiles._without_errors(lambda: tiles._load_split(matrices))
    assert tiles.split_kernel(matrices) is tiles._load_split(matrices)


def test_a_kernel_is_prepared_once(monkeypatch):
    """Each convolution asks for its kernels: a compiler for each of them took 6 GB."""
    begun = []
    monkeypatch.setattr(tiles, "_load_split", begun.append)
    monkeypatch.setattr(tiles, "_begun", set())
    for _ in range(3):
        tiles.prepare("1.0|1.0,2.0", joins=False)
    for thread in threading.enumerate():
        if thread.name == "torch_eqsat kernel":
            thread.join()
    assert begun == ["1.0|1.0,2.0"]


def test_without_a_compiler(monkeypatch, caplog):
    """The calls run in place of a kernel, and one line says so."""

    def fail(*_, **__):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(CppPythonBindingsCodeCache, "load_pybinding", fail)
    forget()
    try:
        with caplog.at_level(logging.WARNING):
            assert equal(*split(image(1, 16, 8, 8), SIX[2], SIX[2], (1, 1), (4, 4), [2, 2]))
            assert equal(*split(image(1, 16, 8, 8), SIX[2], SIX[2], (1, 1), (4, 4), [2, 2]))
        assert len(caplog.records) == 1
        x, operand = image(1, 36 * 16, 2, 2), torch.randn(16, 1, 1)
        arguments = (flat(SIX[0]), 4, flat(SIX[0]), 4, [8, 7], packed(["mul", "relu"]), [operand])
        expected = JOIN_TILES(x, *arguments)
        out = torch.empty_like(expected).to(memory_format=torch.channels_last)
        join_into(out, x, [operand], SIX[0], SIX[0], packed(["mul", "relu"]))
        assert equal(out, expected)
    finally:
        forget()


def test_steps_and_matrices_are_read_as_they_were_written():
    names = ["sub", "mul", "add", "add_image", "relu", "add"]
    assert list(step_names(packed(names))) == names
    assert matrix(flat(SIX[0]), 4) == SIX[0]
    assert tiles._read(tiles.spelled(SIX[0], SAME)) == [SIX[0], SAME]


def test_channels_that_lie_apart_are_refused():
    with pytest.raises(ValueError, match="side by side"):
        tiles.split_numbers((1, 16, 8, 8), (1024, 64, 8, 1), (1, 1, 4, 4), (2, 2))
