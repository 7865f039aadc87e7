"""Ledgers on both databases, each test on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oanim_server.database.engine import Database
from oanim_server.database.migrate import migrate
from tests.ledger.driving import Driven

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.postgresql import Cluster


@pytest.fixture(scope="session")
def postgresql_template(postgresql_cluster: Cluster) -> str:
    """A migrated database that nobody is connected to, to copy."""
    url = postgresql_cluster.create_database()
    database = Database.open_postgresql(url, unsafe=True)
    migrate(database)
    database.close()
    return url


@pytest.fixture
def postgresql_url(postgresql_cluster: Cluster, postgresql_template: str) -> Iterator[str]:
    """A migrated PostgreSQL database of the test's own."""
    url = postgresql_cluster.create_database(postgresql_template)
    yield url
    postgresql_cluster.drop_database(url)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to copy."""
    path = tmp_path_factory.mktemp("template") / "ledger.db"
    database = Database.open_sqlite(path)
    migrate(database)
    database.close()
    return path


@pytest.fixture
def sqlite_path(tmp_path: Path, sqlite_template: Path) -> Path:
    """A migrated SQLite file of the test's own."""
    path = tmp_path / "ledger.db"
    path.write_bytes(sqlite_template.read_bytes())
    return path


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
        template: Path = request.getfixturevalue("sqlite_template")
        path = tmp_path / "case.db"

        def copied() -> Database:
            for former in tmp_path.iterdir():
                former.unlink()
            path.write_bytes(template.read_bytes())
            return Database.open_sqlite(path)

        return copied
    cluster: Cluster = request.getfixturevalue("postgresql_cluster")
    template_url: str = request.getfixturevalue("postgresql_template")
    former: list[str] = []

    def created() -> Database:
        while former:
            cluster.drop_database(former.pop())
        former.append(cluster.create_database(template_url))
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
