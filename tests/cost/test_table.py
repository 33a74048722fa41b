"""The table on disk: shared, never in the way, honest about context."""

import logging
import multiprocessing
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from torch_eqsat.cost import database, folder
from torch_eqsat.cost.kernel import Measurement
from torch_eqsat.cost.table import Context, Table, close_tables, default_path, open_table

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
        assert here.fingerprint() != there.fingerprint()


def test_the_fingerprint_holds_the_times_that_were_asked_for(tmp_path: Path) -> None:
    with Table(HERE, tmp_path / "t") as table:
        empty, unknown = table.fingerprint(), table.fingerprint(["a"])
        table.store_many(SOME)
        assert table.fingerprint() == empty
        assert table.fingerprint(["a"]) != unknown
        assert table.fingerprint(["a", "b"]) == table.fingerprint(["b", "a"])


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


def foreign(path: Path, *statements: str) -> None:
    database = sqlite3.connect(path)
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"this is no database, whatever its name says" * 100),
        lambda path: foreign(path, "CREATE TABLE notes (text)"),
        lambda path: foreign(path, "CREATE TABLE kernel (key, ms)", "PRAGMA user_version = 1"),
        lambda path: foreign(path, "PRAGMA user_version = 99"),
    ],
    ids=["garbage", "foreign", "other columns", "other version"],
)
def test_a_bad_file_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: object) -> None:
    path = tmp_path / "times.sqlite"
    for number in (1, 2):
        path.unlink(missing_ok=True)
        spoil(path)  # type: ignore[operator]
        spoiled = path.read_bytes()
        caplog.clear()
        with Table(HERE, path) as table:
            table.store_many(SOME)
        assert (tmp_path / f"times.sqlite.bad-{number}").read_bytes() == spoiled
        assert len(caplog.records) == 1 and "set aside" in caplog.text
    with Table(HERE, path) as table:
        assert table.lookup_many(SOME) == SOME


def test_damage_found_later_does_not_stop_the_program(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "t"
    with Table(HERE, path) as table:
        table.store_many(SOME)
        foreign(path, "DROP TABLE kernel")
        assert table.lookup_many(SOME) == {}
        table.store_many(SOME)
        assert table.lookup_many(SOME) == SOME
    assert len(caplog.records) == 1 and "in memory" in caplog.text


def test_memory_serves_where_there_is_no_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING), Table(HERE, tmp_path / "file" / "times.sqlite") as table:
        table.store_many(SOME)
        assert table.lookup_many(SOME) == SOME
    assert len(caplog.records) == 1 and "in memory" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_memory_serves_where_the_folder_is_read_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o500)
    with Table(HERE, tmp_path / "times.sqlite") as table:
        table.store_many(SOME)
        assert table.lookup_many(SOME) == SOME
    assert len(caplog.records) == 1 and "in memory" in caplog.text


def test_a_closed_table_says_so(tmp_path: Path) -> None:
    table = Table(HERE, tmp_path / "t")
    table.close()
    table.close()
    with pytest.raises(sqlite3.ProgrammingError):
        table.lookup_many(["a"])


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A table that another connection keeps for itself."""
    path = tmp_path / "locked.sqlite"
    Table(HERE, path).close()
    other = sqlite3.connect(path)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    other.execute("DELETE FROM kernel")
    yield path
    other.close()


def test_a_lock_is_waited_for_once(
    locked: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each opening waited for ten seconds, with a line each."""
    waited: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(database.time, "sleep", sleep)
    monkeypatch.setattr(database.time, "monotonic", lambda: now[0])
    for _ in range(3):
        with Table(HERE, locked) as table:
            table.store_many(SOME)
            assert table.lookup_many(SOME) == SOME
    assert sum(waited) == pytest.approx(database.BUSY_S, rel=0.02)
    assert len(caplog.records) == 1 and "locked" in caplog.text and "in memory" in caplog.text


def test_a_lock_that_ends_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t"
    Table(HERE, path).close()
    other = sqlite3.connect(path)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(database.time, "sleep", lambda seconds: other.rollback())
    with Table(HERE, path) as table:
        table.store_many(SOME)
    with Table(HERE, path) as table:
        assert table.lookup_many(SOME) == SOME
    other.close()


def test_a_table_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = open_table(HERE, tmp_path / "t")
    table.store_many(SOME)
    assert open_table(HERE, tmp_path / "t") is table
    assert open_table(Context("cpu", "a CPU", 2, "2.14.1"), tmp_path / "t") is not table
    assert open_table(HERE, tmp_path / "u") is not table
    monkeypatch.setattr(os, "getpid", lambda: -1)  # after a fork
    child = open_table(HERE, tmp_path / "t")
    assert child is not table and child.lookup_many(SOME) == SOME
    close_tables()
    assert table.lookup_many(SOME) == SOME  # the parent's is not for the child to close
    monkeypatch.undo()
    close_tables()
    with pytest.raises(sqlite3.ProgrammingError):
        table.lookup_many(SOME)


def test_a_table_that_was_removed_is_made_anew(tmp_path: Path) -> None:
    open_table(HERE, tmp_path / "t").store_many(SOME)
    for path in tmp_path.iterdir():
        path.unlink()
    open_table(HERE, tmp_path / "t").store_many({"a": SOME["a"]})
    close_tables()
    assert open_table(HERE, tmp_path / "t").lookup_many(SOME) == {"a": SOME["a"]}


def test_damage_within_the_file_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "t"
    with Table(HERE, path) as table:
        table.store_many(numbered(range(2000)))
        table._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw = bytearray(path.read_bytes())
    raw[3 * 4096 :] = b"\x55" * (len(raw) - 3 * 4096)
    path.write_bytes(raw)
    with Table(HERE, path) as table:
        table.lookup_many(numbered(range(2000)))
        table.store_many(SOME)
        assert table.lookup_many(SOME) == SOME
    assert len(caplog.records) == 1 and "set aside" in caplog.text
    with Table(HERE, path) as table:
        table.store_many(SOME)
        assert table.lookup_many(SOME) == SOME
    assert len(caplog.records) == 1


def test_without_a_home_there_is_memory(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("TORCH_EQSAT_CACHE_DIR", raising=False)

    def nowhere(name: str) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(folder.platformdirs, "user_cache_dir", nowhere)
    for _ in range(2):
        table = open_table(HERE)
        table.store_many(SOME)
        assert table.lookup_many(SOME) == SOME
    assert len(caplog.records) == 1 and "TORCH_EQSAT_CACHE_DIR may name one" in caplog.text


@pytest.mark.parametrize("value", [None, "text", b"bytes", -1.0, float("inf")])
def test_what_is_no_time_is_not_known(tmp_path: Path, value: object) -> None:
    with Table(HERE, tmp_path / "t") as table:
        table.store_many(SOME)
        table.store_coefficients({"one": 1.0, "two": 2.0}, 0.0, 1)
        try:
            table._database.execute("UPDATE kernel SET ms = ? WHERE key = 'a'", (value,))
            table._database.execute("UPDATE coefficient SET value = ? WHERE name = 'one'", (value,))
        except sqlite3.IntegrityError:
            pytest.skip("SQLite refuses it")
        assert table.lookup_many(SOME) == table.everything() == {"b": SOME["b"]}
        assert table.coefficients() == {"two": 2.0}


@pytest.mark.parametrize("old", [b"matmul", b"NOT NULL"], ids=["a key", "the schema"])
def test_damaged_text_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture, old: bytes) -> None:
    """Python raises errors of its own for it, some of which are none of sqlite3's."""
    path = tmp_path / "t"
    with Table(HERE, path) as table:
        table.store_many({"matmul": SOME["a"]})
        table._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(path.read_bytes().replace(old, b"\xb2" * len(old)))
    with Table(HERE, path) as table:
        assert table.everything() == {}
    assert len(caplog.records) == 1 and "set aside" in caplog.text and "\n" not in caplog.records[0].getMessage()
