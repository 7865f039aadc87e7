"""Shops on each database, which the tests of this folder share, each with accounts of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oanim_server.database.engine import Database
from oanim_server.database.migrate import migrate
from tests.selling import RunningShop, selling
from tests.server import Calls

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningShop]:
    environment = {"OANIM_DATA": str(tmp_path_factory.mktemp("data"))}
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_cluster").create_database()
        migrated(url, unsafe=True)
        environment |= {"OANIM_DATABASE_URL": url, "OANIM_POSTGRESQL_UNSAFE": "1"}
    with selling(environment) as started:
        yield started


@pytest.fixture
def calls(shop: RunningShop) -> Calls:
    """A new account's calls."""
    return Calls(shop.server.channel, shop.server.sign_up())


def migrated(url: str, *, unsafe: bool = False) -> None:
    """Bring a PostgreSQL to the present schema."""
    database = Database.open_postgresql(url, unsafe=unsafe)
    migrate(database)
    database.close()
