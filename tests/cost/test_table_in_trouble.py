"""The table on disk where something is wrong: damage, locks, no folder."""

import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cost.test_table import HERE, SOME, fresh, numbered  # noqa: F401 (a fixture)
from torch_eqsat.cost import database, folder
from torch_eqsat.cost.table import Context, Table, close_tables, open_table


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
