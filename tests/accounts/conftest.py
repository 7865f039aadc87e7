"""A server's accounts on both databases, each test on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oanim_server.database.engine import Database
from tests.accounts.house import House
from tests.ledger.conftest import (  # noqa: F401 - fixtures
    open_database,
    postgresql_url,
    sqlite_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def house(open_database: Callable[[], Database]) -> Iterator[House]:  # noqa: F811 - the fixture of that name
    """A server's accounts, once on each database."""
    one = House(open_database())
    yield one
    one.close()


@pytest.fixture
def houses(postgresql_url: str) -> Iterator[tuple[House, House]]:  # noqa: F811 - the fixture of that name
    """Two servers on one PostgreSQL."""
    one = House(Database.open_postgresql(postgresql_url, unsafe=True))
    other = House(Database.open_postgresql(postgresql_url, unsafe=True), clock=one.clock)
    yield one, other
    one.close()
    other.close()
