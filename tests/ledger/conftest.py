"""Ledgers on both databases, each test on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oanim_server.database.engine import Database
from tests import migrated
from tests.ledger.driving import Driven
from tests.ledger.losing import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.postgresql import Cluster


@pytest.fixture
def postgresql_url(postgresql_cluster: Cluster) -> Iterator[str]:
    """A migrated PostgreSQL database of the test's own."""
    url = migrated.postgresql(postgresql_cluster)
    yield url
    postgresql_cluster.drop_database(url)


@pytest.fixture
def proxy(postgresql_url: str) -> Iterator[Proxy]:
    """A proxy before the test's PostgreSQL."""
    proxy = Proxy(postgresql_url)
    yield proxy
    proxy.close()


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    """A migrated SQLite file of the test's own."""
    return migrated.sqlite(tmp_path / "ledger.db")


@pytest.fixture(params=["sqlite", "postgresql"])
def open_database(request: pytest.FixtureRequest) -> Callable[[], Database]:
    """Opens the test's database; on PostgreSQL as often as there are servers."""
    if request.param == "sqlite":
        path: Path = request.getfixturevalue("sqlite_path")
        return lambda: Database.open_sqlite(path)
    url: str = request.getfixturevalue("postgresql_url")
    return lambda: Database.open_postgresql(url, unsafe=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Database]:
    """Opens another migrated database each time, for tests of many cases."""
    if request.param == "sqlite":

        def copied() -> Database:
            for former in tmp_path.iterdir():
                former.unlink()
            return Database.open_sqlite(migrated.sqlite(tmp_path / "case.db"))

        return copied
    cluster: Cluster = request.getfixturevalue("postgresql_cluster")
    former: list[str] = []

    def created() -> Database:
        while former:
            cluster.drop_database(former.pop())
        former.append(migrated.postgresql(cluster))
        return Database.open_postgresql(former[0], unsafe=True)

    return created


@pytest.fixture
def ledger(open_database: Callable[[], Database]) -> Iterator[Driven]:
    """A started ledger, once on each database, with the test's clock and without a sweeper."""
    driven = Driven(open_database()).start()
    yield driven
    driven.close()


@pytest.fixture
def sqlite_ledger(sqlite_path: Path) -> Iterator[Driven]:
    """The same on SQLite alone, for what only a file has."""
    driven = Driven(Database.open_sqlite(sqlite_path)).start()
    yield driven
    driven.close()


@pytest.fixture
def on_postgresql(postgresql_url: str) -> Iterator[Driven]:
    """A ledger on PostgreSQL alone."""
    driven = Driven(Database.open_postgresql(postgresql_url, unsafe=True)).start()
    yield driven
    driven.close()
