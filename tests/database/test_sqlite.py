from __future__ import annotations

import subprocess
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, cast

import pytest
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import OperationalError

from oanim_server.database import sqlite
from oanim_server.database.engine import PAGE_BYTES, Database, DatabaseError, driver_of
from oanim_server.database.migrate import migrate
from oanim_server.database.places import Places
from oanim_server.database.tables import marks
from tests.ledger.driving import Driven, batch

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def database(sqlite_path: Path) -> Iterator[Database]:
    """A migrated SQLite file that is open."""
    database = Database.open_sqlite(sqlite_path)
    yield database
    database.close()


def mark(database: Database, name: str) -> None:
    with database.writing() as connection:
        connection.execute(insert(marks).values(name=name, value=""))


def names(connection: Connection) -> list[str]:
    return list(connection.execute(select(marks.c.name).order_by(marks.c.name)).scalars())


def pragma(connection: Connection, name: str) -> object:
    return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def test_the_writer_has_the_settings_that_durability_rests_on(database: Database) -> None:
    with database.writer() as connection:
        assert {name: pragma(connection, name) for name in WRITING} == WRITING


WRITING = {
    "journal_mode": "wal",
    "synchronous": 2,
    "foreign_keys": 1,
    "cache_size": 101_680,
    "mmap_size": 0,
    "temp_store": 2,
    "wal_autocheckpoint": 4_000,
}


def test_what_moves_money_leaves_the_index_of_what_is_due_alone(database: Database) -> None:
    """SQLite writes an entry again, a page at another place, though nothing of it is new."""
    migrate(database)
    with database.writing() as connection:
        noting = Noting(driver_of(connection))
        places = Places(0, [(1,)], {1: 1})
        row = (1, 0, 0, 2, 1, bytes(32), "[]", 1, 1)
        sqlite.update_wallets(cast("sqlite3.Connection", noting), [row], places)
        query = "SELECT rootpage, name FROM sqlite_master WHERE rootpage > 0"
        names = dict(noting.driver.execute(query).fetchall())
    assert [names[root] for root in noting.written] == ["wallets"]


class Noting:
    """A driver's connection that notes the roots of what each statement opens to write."""

    def __init__(self, driver: sqlite3.Connection) -> None:
        self.driver = driver
        self.written: list[int] = []

    def execute(self, statement: str, values: list[object]) -> sqlite3.Cursor:
        for _, opcode, _, root, *_ in self.driver.execute("EXPLAIN " + statement, values).fetchall():
            if opcode == "OpenWrite":
                self.written.append(root)
        return self.driver.execute(statement, values)


def test_a_reader_cannot_write_and_never_checkpoints(database: Database) -> None:
    def read(connection: Connection) -> dict[str, object]:
        return {name: pragma(connection, name) for name in READING}

    assert database.read_now(read) == READING
    for statement in ("DELETE FROM marks", "CREATE TABLE t (c)", "DELETE FROM marks RETURNING name"):
        with pytest.raises(OperationalError, match="readonly"):
            database.read_now(partial(Connection.exec_driver_sql, statement=statement))


def test_a_reader_cannot_be_talked_into_writing(database: Database) -> None:
    def insist(connection: Connection) -> None:
        connection.exec_driver_sql("PRAGMA query_only = OFF")
        connection.execute(insert(marks).values(name="a", value=""))

    with pytest.raises(OperationalError, match="readonly"):
        database.read_now(insist)


READING = {"query_only": 1, "mmap_size": 0, "wal_autocheckpoint": 0}


def test_every_table_is_strict(database: Database) -> None:
    found = database.read_now(
        lambda connection: connection.execute(
            text("SELECT name, strict FROM pragma_table_list WHERE type = 'table' AND schema = 'main'")
        ).all()
    )
    loose = {name for name, strict in found if not strict}
    assert loose <= {"alembic_version", "sqlite_schema", "sqlite_stat1", "sqlite_stat4"}


def test_a_file_that_is_open_is_refused_to_anybody_else(database: Database, sqlite_path: Path) -> None:
    with pytest.raises(DatabaseError, match="in use"):
        Database.open_sqlite(sqlite_path)
    other = subprocess.run(
        [sys.executable, "-c", OPENING, str(sqlite_path)], capture_output=True, text=True, check=False
    )
    assert other.stdout == f"{sqlite_path} is in use by another oanim-server\n"
    assert other.returncode == 1
    mark(database, "still open")
    database.close()
    Database.open_sqlite(sqlite_path).close()


OPENING = """
import pathlib, sys
from oanim_server.database import sqlite
from oanim_server.database.engine import Database, DatabaseError, driver_of
try:
    Database.open_sqlite(pathlib.Path(sys.argv[1]))
except DatabaseError as error:
    print(error)
    sys.exit(1)
"""


def test_without_the_lock_a_database_is_read_while_its_server_writes(
    database: Database, sqlite_path: Path
) -> None:
    reading = Database.open_sqlite(sqlite_path, lock=False)
    mark(database, "a")
    assert reading.read_now(names) == ["a"]
    with pytest.raises(DatabaseError, match="without its lock"):
        reading.writer()
    reading.close()
    mark(database, "b")
    assert database.read_now(names) == ["a", "b"]


def test_a_read_sees_one_snapshot_and_keeps_nobody_from_writing(database: Database) -> None:
    looked, written = threading.Event(), threading.Event()

    def twice(connection: Connection) -> tuple[list[str], list[str]]:
        first = names(connection)
        looked.set()
        assert written.wait(10)
        return first, names(connection)

    seen: list[tuple[list[str], list[str]]] = []
    reading = threading.Thread(target=lambda: seen.append(database.read_now(twice)))
    reading.start()
    assert looked.wait(10)
    mark(database, "a")
    written.set()
    reading.join(10)
    assert seen == [([], [])]
    assert database.read_now(names) == ["a"]


@pytest.mark.parametrize("folder", ["with space", "ümläut", "100%25", "a#b", "a?b=c", "a&mode=rw", "it's"])
def test_a_database_may_be_in_any_folder(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / "ledger.db"
    database = Database.open_sqlite(path)
    migrate(database)
    mark(database, "a")
    assert database.read_now(names) == ["a"]
    database.close()
    assert path.exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [folder]


def test_what_is_closed_is_one_file_and_all_is_in_it(tmp_path: Path) -> None:
    """Also where a reader, which may not move the WAL, had it open last."""
    path = tmp_path / "ledger.db"
    database = Database.open_sqlite(path)
    migrate(database)
    assert database.read_now(names) == []
    mark(database, "a")
    assert database.read_now(names) == ["a"]
    database.close()
    assert {entry.name for entry in tmp_path.iterdir()} == {"ledger.db", "ledger.db.lock"}
    copy = tmp_path / "copied" / "ledger.db"
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    copied = Database.open_sqlite(copy)
    assert copied.read_now(names) == ["a"]
    copied.close()


def test_an_idle_writer_moves_the_wal_into_the_database(
    sqlite_ledger: Driven, sqlite_path: Path, tmp_path: Path
) -> None:
    wallet_id = sqlite_ledger.open_wallet(1_000)
    sqlite_ledger.hold(wallet_id, 10)
    copy = tmp_path / "copy.db"
    deadline = time.monotonic() + 10
    while True:
        copy.write_bytes(sqlite_path.read_bytes())
        alone = Database.open_sqlite(copy)
        held = alone.read_now(lambda c: c.execute(text("SELECT sum(held_micros) FROM wallets")).scalar_one())
        alone.close()
        if held == 10:
            break
        assert time.monotonic() < deadline, "the WAL was not checkpointed"


def test_the_wal_does_not_grow_without_end_under_load(sqlite_ledger: Driven, sqlite_path: Path) -> None:
    wallet_id = sqlite_ledger.open_wallet(10**9)
    wal = sqlite_path.with_name(sqlite_path.name + "-wal")
    sizes = []
    for _ in range(20):
        batch(
            sqlite_ledger.ledger,
            [sqlite_ledger.reserve(wallet_id, 1, labels={"x": "y" * 16_000}) for _ in range(150)],
        )
        sizes.append(wal.stat().st_size)
    assert sqlite_path.stat().st_size > 40_000_000
    # A group here is less than 4 MB; SQLite itself begins anew after 4,000 pages (8 MB).
    assert max(sizes) < 16_000_000


def test_the_wal_is_moved_between_groups_when_it_has_some_2000_pages(
    sqlite_ledger: Driven, sqlite_path: Path
) -> None:
    """And not by SQLite at the end of a COMMIT, which would be after 4,000."""
    wallets = [sqlite_ledger.open_wallet(10**9) for _ in range(60)]
    wal = sqlite_path.with_name(sqlite_path.name + "-wal")
    for _ in range(45):
        batch(sqlite_ledger.ledger, [sqlite_ledger.reserve(w, 1) for w in wallets])
    assert 500 < wal.stat().st_size / PAGE_BYTES < 3_000
    # Its header counts how often it was begun anew.
    assert 2 <= int.from_bytes(wal.read_bytes()[12:16], "big") <= 10
