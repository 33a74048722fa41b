"""The table on disk: shared, never in the way, honest about context."""

import multiprocessing
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from torch_eqsat.cost import database, folder
from torch_eqsat.cost.kernel import Measurement
from torch_eqsat.cost.table import Context, Table, close_tables, default_path

HERE = Context("cpu", "a CPU", 1, "2.14.1")
SOME = {"a": Measurement(1.5, 0.1, 20), "b": Measurement(0.25, 0.0, 3)}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    close_tables()
    folder.forget_trouble()
    yield
    close_tables()
    folder.forget_trouble()


def numbered(numbers: Iterable[int]) -> dict[str, Measurement]:
    return {str(n): Measurement(n + 1.0, 0.0, 5) for n in numbers}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "times.sqlite"
    with Table(HERE, path) as table:
        assert table.lookup_many(SOME) == {}
        table.store_many(SOME)
        table.store_many({})
    with Table(HERE, path) as table:
        assert table.lookup_many([*SOME, "c"]) == SOME
        assert table.lookup_many([]) == {}


def test_a_new_time_replaces_the_old(tmp_path: Path) -> None:
    with Table(HERE, tmp_path / "t") as table:
        table.store_many(SOME)
        table.store_many({"a": Measurement(9.0, 0.0, 1)})
        assert table.lookup_many(["a"])["a"].ms == 9.0


def test_more_keys_than_a_statement_takes(tmp_path: Path) -> None:
    many = numbered(range(1234))
    with Table(HERE, tmp_path / "t") as table:
        table.store_many(many)
        assert table.lookup_many(many) == many


@pytest.mark.parametrize(
    "elsewhere",
    [
        Context("NVIDIA L4", "a CPU", 1, "2.14.1"),
        Context("cpu", "another CPU", 1, "2.14.1"),
        Context("cpu", "a CPU", 2, "2.14.1"),
        Context("cpu", "a CPU", 1, "2.14.2"),
    ],
    ids=["device", "cpu", "threads", "torch"],
)
def test_contexts_do_not_mix(tmp_path: Path, elsewhere: Context) -> None:
    with Table(HERE, tmp_path / "t") as here, Table(elsewhere, tmp_path / "t") as there:
        here.store_many(SOME)
        assert there.lookup_many(SOME) == {}


def test_the_folder_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EQSAT_CACHE_DIR", str(tmp_path))
    assert default_path().parent == tmp_path
    with Table(HERE) as table:
        table.store_many(SOME)
    assert default_path().exists()
    monkeypatch.delenv("TORCH_EQSAT_CACHE_DIR")
    assert "torch_eqsat" in str(default_path())


def write_half(path: str, start: int, gate: "multiprocessing.synchronize.Barrier") -> None:
    """Opens a table that is not there yet at the same time as another process, and fills half of it row by row."""
    gate.wait()
    database.BUSY_S = 60.0  # on a busy machine the other one takes its time
    with Table(HERE, path) as table:
        for n in range(start, 200, 2):
            table.store_many(numbered([n, 1000 + n % 10]))


def test_two_processes_write_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spawn = multiprocessing.get_context("spawn")
    gate = spawn.Barrier(2)
    path = str(tmp_path / "t")
    writers = [spawn.Process(target=write_half, args=(path, start, gate)) for start in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    with Table(HERE, path) as table:
        wanted = numbered([*range(200), *range(1000, 1010)])
        assert table.lookup_many(wanted) == wanted
    assert not list(tmp_path.glob("*.bad-*"))
    assert not caplog.records


def test_threads_share_a_table(tmp_path: Path) -> None:
    with Table(HERE, tmp_path / "t") as table:
        threads = [threading.Thread(target=table.store_many, args=(numbered([n]),)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(table.lookup_many(numbered(range(8)))) == 8
