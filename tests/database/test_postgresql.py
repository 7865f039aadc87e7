from __future__ import annotations

import asyncio
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import insert, make_url, select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from oanim_server.database.columns import Asked, Loaded
from oanim_server.database.engine import Database, DatabaseError, driver_of, is_away
from oanim_server.database.tables import marks
from tests.ledger.losing import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from tests.postgresql import Cluster


@pytest.fixture
def database(postgresql_url: str) -> Iterator[Database]:
    """A migrated PostgreSQL database that is open."""
    database = Database.open_postgresql(postgresql_url, unsafe=True)
    yield database
    database.close()


def settings(connection: Connection) -> dict[str, str]:
    return {name: str(connection.exec_driver_sql(f"SHOW {name}").scalar()) for name in WRITING}


WRITING = {
    "synchronous_commit": "on",
    "lock_timeout": "2s",
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "5s",
    "transaction_isolation": "read committed",
}


def test_the_writer_has_the_settings_that_durability_rests_on(database: Database) -> None:
    with database.writer() as connection:
        assert settings(connection) == WRITING


def test_a_server_that_is_cut_off_is_noticed(database: Database) -> None:
    def noticed(connection: Connection) -> dict[str, str]:
        known = driver_of(connection).info.get_parameters()
        return {name: value for name, value in known.items() if name.startswith(("keepalives", "tcp_"))}

    expected = {
        "keepalives_idle": "5",
        "keepalives_interval": "2",
        "keepalives_count": "3",
        "tcp_user_timeout": "10000",
    }
    with database.writer() as connection:
        assert noticed(connection) == expected
    assert database.read_now(noticed) == expected
    assert database.read_now(lambda connection: settings(connection)["statement_timeout"]) == "10s"


def test_what_reads_everything_may_take_its_time_and_nothing_after_it(database: Database) -> None:
    limits = {name: value for name, value in WRITING.items() if name.endswith("_timeout")}
    for read, expected in (
        (database.read_patiently, dict.fromkeys(limits, "0")),
        (database.read_now, limits),
    ):
        told = read(settings)
        assert {name: told[name] for name in limits} == expected


def test_a_database_that_hangs_is_hung_up_on(postgresql_url: str) -> None:
    proxy = Proxy(postgresql_url)
    database = Database.open_postgresql(proxy.url, unsafe=True)
    database.read_now(lambda connection: connection.execute(select(marks)).all())
    proxy.passing.clear()

    async def read() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await database.read(lambda connection: connection.execute(select(marks)).all())

    asyncio.run(read())
    began = time.monotonic()
    database.close()
    assert time.monotonic() - began < 5
    with pytest.raises(OperationalError) as raised:
        database.writer()
    assert is_away(raised.value)
    proxy.close()


@pytest.mark.parametrize(
    ("configured", "used"),
    [("off", "on"), ("local", "on"), ("remote_write", "on"), ("remote_apply", "remote_apply")],
)
def test_a_database_that_is_configured_to_forget_is_told_not_to(
    postgresql_url: str, configured: str, used: str
) -> None:
    admin(
        postgresql_url,
        f"ALTER DATABASE {make_url(postgresql_url).database} SET synchronous_commit = {configured}",
    )
    database = Database.open_postgresql(postgresql_url, unsafe=True)
    with database.writer() as connection:
        assert settings(connection) == {**WRITING, "synchronous_commit": used}
        connection.rollback()
        connection.execute(text("SELECT 1"))
        connection.rollback()
        assert settings(connection)["synchronous_commit"] == used
    database.close()


def admin(url: str, statement: str) -> None:
    plain = make_url(url).set(drivername="postgresql").render_as_string()
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(statement)


def test_a_server_without_fsync_is_refused_unless_a_test_says_so(postgresql_url: str) -> None:
    with pytest.raises(DatabaseError, match="fsync = off"):
        Database.open_postgresql(postgresql_url)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_spelling_of_the_url_is_understood(postgresql_url: str, scheme: str) -> None:
    url = scheme + postgresql_url[postgresql_url.index("://") :]
    database = Database.open_postgresql(url, unsafe=True)
    assert database.read_now(lambda connection: connection.execute(select(marks)).all()) == []
    database.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hunter2@127.0.0.1:{port}/db",
        "postgresql://user@127.0.0.1:{port}/db?password=hunter2",
        "postgresql://127.0.0.1:{port}/db?user=user&passfile=x&password=hunter2",
    ],
)
def test_a_server_that_does_not_answer_is_named_without_the_password(free_port: int, url: str) -> None:
    with pytest.raises(DatabaseError, match="does not answer") as raised:
        Database.open_postgresql(url.format(port=free_port))
    told = "".join(str(part) for part in (raised.value, raised.value.__cause__, *raised.value.args))
    assert "hunter2" not in told
    assert str(free_port) in told


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hunter2@pw@127.0.0.1:1/db",
        "postgresql://user:p@ss:hunter2@127.0.0.1/db",
        "postgresql://us/er:hunter2@127.0.0.1/db",
        "postgresql://user:hunter2/db",
        "postgresql://user:hunter2@[::1",
        "hunter2",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_unseen(url: str) -> None:
    with pytest.raises(DatabaseError) as raised:
        Database.open_postgresql(url)
    assert str(raised.value) == (
        "OANIM_DATABASE_URL is not the url of a PostgreSQL: it is postgresql://user:password@host/database, "
        "and in a user or a password @ is written as %40, : as %3A and / as %2F"
    )
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


def test_a_read_sees_one_snapshot(database: Database) -> None:
    looked, written = threading.Event(), threading.Event()

    def names(connection: Connection) -> list[str]:
        return list(connection.execute(select(marks.c.name)).scalars())

    def twice(connection: Connection) -> tuple[list[str], list[str]]:
        first = names(connection)
        looked.set()
        assert written.wait(10)
        return first, names(connection)

    seen: list[tuple[list[str], list[str]]] = []
    reading = threading.Thread(target=lambda: seen.append(database.read_now(twice)))
    reading.start()
    assert looked.wait(10)
    with database.writing() as connection:
        connection.execute(insert(marks).values(name="a", value=""))
    written.set()
    reading.join(10)
    assert seen == [([], [])]
    assert database.read_now(names) == ["a"]


def test_a_read_cannot_write(database: Database) -> None:
    with pytest.raises(DBAPIError):
        database.read_now(lambda connection: connection.execute(insert(marks).values(name="a", value="")))
    assert database.read_now(lambda connection: connection.execute(select(marks)).all()) == []


def test_two_databases_of_one_server_do_not_meet(postgresql_cluster: Cluster, database: Database) -> None:
    with database.writing() as connection:
        connection.execute(insert(marks).values(name="a", value=""))
    other = postgresql_cluster.create_database()
    opened = Database.open_postgresql(other, unsafe=True)
    assert opened.read_now(lambda connection: connection.execute(text("SELECT 1")).scalar_one()) == 1
    opened.close()
    postgresql_cluster.drop_database(other)


def test_a_read_judges_by_a_time_that_its_snapshot_is_not_older_than(database: Database) -> None:
    def times(connection: Connection) -> tuple[int, int]:
        driver = driver_of(connection)
        return database.statements.clock(driver), database.statements.snapshot_clock(driver)

    while_the_snapshot_was_taken, before = database.read_now(times)
    assert before < while_the_snapshot_was_taken


def test_a_group_reads_the_time_and_the_rows_after_its_lock(database: Database) -> None:
    """In one round trip, too: what another replica commits meanwhile is seen, and lies before that time."""
    statements = database.statements
    with database.writing() as connection:
        connection.execute(text("INSERT INTO accounts VALUES (7, 1, 'a', '', 1, 'k', '', 0)"))
        connection.execute(text("INSERT INTO wallets VALUES (7, 5, 0, 0, 1, 1, '', 0, NULL, 0, 0, '[]')"))

    def load() -> Loaded:
        with database.writing() as connection:
            return statements.lock_and_load(driver_of(connection), Asked([7], [], [], [], []))

    with ThreadPoolExecutor(1) as other:
        with database.writing() as connection:
            statements.lock_wallets(driver_of(connection), [7])
            loading = other.submit(load)
            with pytest.raises(TimeoutError):
                loading.result(0.5)
            connection.execute(text("UPDATE wallets SET seq = 2"))
            released = statements.clock(driver_of(connection))
        loaded = loading.result(10)
    assert loaded.now > released
    assert [row[4] for row in loaded.wallets] == [2]
