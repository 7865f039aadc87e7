"""A server's prices on both databases, each test on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oanim_server.database.engine import Database
from tests.ledger.conftest import (  # noqa: F401 - fixtures
    open_database,
    postgresql_url,
    sqlite_path,
)
from tests.pricing.shop import Shop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def shop(open_database: Callable[[], Database]) -> Iterator[Shop]:  # noqa: F811 - the fixture of that name
    """A server's prices, once on each database."""
    one = Shop(open_database())
    yield one
    one.close()


@pytest.fixture
def shops(postgresql_url: str) -> Iterator[tuple[Shop, Shop]]:  # noqa: F811 - the fixture of that name
    """Two servers on one PostgreSQL."""
    one = Shop(Database.open_postgresql(postgresql_url, unsafe=True))
    other = Shop(Database.open_postgresql(postgresql_url, unsafe=True), clock=one.clock)
    yield one, other
    one.close()
    other.close()
