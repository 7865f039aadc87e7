"""The databases that are measured: an SQLite file, and a PostgreSQL of this run's own, both durable.

The PostgreSQL is the tests', without what makes the tests fast: nothing here is bought with durability, and
that is asserted on the connection that writes, by the code that opens it for a server.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psycopg

from oanim_server.database.engine import CACHE_PAGES, CACHED_PAGE_BYTES, PAGE_BYTES, driver_of
from oanim_server.database.migrate import migrate
from oanim_server.database.opening import open_database
from tests.postgresql import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from oanim_server.database.engine import Database

# As PostgreSQL ships it, but for as much of a cache as SQLite has, and room for the log of a fill.
POSTGRESQL = {"shared_buffers": "256MB", "max_wal_size": "4GB", "max_connections": "300"}
DURABLE = {
    "SQLite": {"synchronous": "2", "journal_mode": "wal"},
    "PostgreSQL": {"synchronous_commit": "on", "fsync": "on", "full_page_writes": "on"},
}


class Store(Protocol):
    """A database of its own for one server at a time."""

    @property
    def name(self) -> str:
        """Which kind."""

    @property
    def settings(self) -> dict[str, str]:
        """What its server is started with."""

    def cpu_seconds(self) -> float:
        """What processes of its own have used of the CPU."""

    def cache_bytes(self) -> int:
        """How much of a server's memory is the database's pages."""

    def stalled(self) -> AbstractContextManager[None]:
        """Nothing is written to it inside the block."""

    def remove(self) -> None:
        """Delete it."""


class SqliteStore:
    """A file in a folder of its own."""

    name = "SQLite"

    def __init__(self) -> None:
        self._data = Path(tempfile.mkdtemp(prefix="oanim-bench-"))
        self.settings = {"OANIM_DATA": str(self._data)}

    def cpu_seconds(self) -> float:
        return 0.0

    def cache_bytes(self) -> int:
        pages = (self._data / "oanim.db").stat().st_size // PAGE_BYTES
        return min(CACHE_PAGES, pages) * CACHED_PAGE_BYTES

    @contextmanager
    def stalled(self) -> Iterator[None]:
        with closing(sqlite3.connect(self._data / "oanim.db", isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")

    def remove(self) -> None:
        shutil.rmtree(self._data)


class PostgresqlStore:
    """A database of the run's cluster."""

    name = "PostgreSQL"

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._url = cluster.create_database()
        self._data = Path(tempfile.mkdtemp(prefix="oanim-bench-"))
        self.settings = {"OANIM_DATA": str(self._data), "OANIM_DATABASE_URL": self._url}

    def cpu_seconds(self) -> float:
        return self._cluster.cpu_seconds

    def cache_bytes(self) -> int:
        return 0

    @contextmanager
    def stalled(self) -> Iterator[None]:
        with psycopg.connect(self._url.replace("+psycopg", "", 1)) as connection:
            connection.execute("LOCK TABLE wallets IN EXCLUSIVE MODE")
            yield
            connection.rollback()

    def remove(self) -> None:
        shutil.rmtree(self._data)
        self._cluster.drop_database(self._url)


def durable_cluster() -> Cluster:
    """A PostgreSQL that keeps what it acknowledged, to be entered."""
    return Cluster(POSTGRESQL)


@contextmanager
def opened(settings: Mapping[str, str]) -> Iterator[Database]:
    """A store's database at the present schema, opened as its server will, its durability asserted."""
    database = open_database(
        Path(settings["OANIM_DATA"]) / "oanim.db", settings.get("OANIM_DATABASE_URL"), unsafe=False
    )
    try:
        migrate(database)
        with database.writer() as connection:
            _assert_durable(database, connection)
        yield database
    finally:
        database.close()


def at_rest(database: Database) -> None:
    """What a database does by itself some minutes after it was filled, done now."""
    with database.writer() as connection:
        driver = driver_of(connection)
        if database.dialect == "sqlite":
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        else:
            driver.autocommit = True
            driver.execute("SET statement_timeout = 0")
            driver.execute("VACUUM (ANALYZE)")
            driver.execute("CHECKPOINT")


def _assert_durable(database: Database, connection: Connection) -> None:
    """See that the writer's connection has what durability rests on.

    :raises RuntimeError: naming what it has not.
    """
    kind, ask = ("SQLite", "PRAGMA") if database.dialect == "sqlite" else ("PostgreSQL", "SHOW")
    for setting, wanted in DURABLE[kind].items():
        found = str(driver_of(connection).execute(f"{ask} {setting}").fetchone()[0])
        if found != wanted:
            raise RuntimeError(f"{kind} has {setting} = {found}: nothing measured on it would count")
