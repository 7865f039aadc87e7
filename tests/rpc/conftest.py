"""Servers that answer: one on each database for all tests of this folder, and fresh ones by settings."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests import migrated
from tests.selling import RunningShop, selling_on
from tests.server import Calls, RunningServer, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.postgresql import Cluster


# Tests sign up more often than a day's free credits allow.
MANY_SIGN_UPS = {"OANIM_FREE_CREDITS_DAILY_CAP_USD": "100000"}


@contextmanager
def postgresql_settings(cluster: Cluster) -> Iterator[dict[str, str]]:
    """The settings of a server on a migrated PostgreSQL database, until the block ends."""
    url = migrated.postgresql(cluster)
    yield {"OANIM_DATABASE_URL": url, "OANIM_POSTGRESQL_UNSAFE": "1", **MANY_SIGN_UPS}
    cluster.drop_database(url)


@pytest.fixture(scope="session")
def postgresql_environment(postgresql_cluster: Cluster) -> Iterator[dict[str, str]]:
    """The settings of the servers on PostgreSQL that tests share."""
    with postgresql_settings(postgresql_cluster) as settings:
        yield settings


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """A server on each database. Tests share it, each with accounts of its own."""
    environment = {"OANIM_DATA": str(tmp_path_factory.mktemp("data"))}
    if request.param == "postgresql":
        environment |= request.getfixturevalue("postgresql_environment")
    with running({**MANY_SIGN_UPS, **environment}) as started:
        yield started


@pytest.fixture
def calls(server: RunningServer) -> Calls:
    """A new account's calls."""
    return Calls(server.channel, server.sign_up())


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningShop]:
    """A server on each database that sells, through a Stripe of its own."""
    cluster = partial(request.getfixturevalue, "postgresql_cluster")
    with selling_on(request.param, cluster, tmp_path_factory.mktemp("data")) as started:
        yield started


@pytest.fixture
def buyer(shop: RunningShop) -> Calls:
    """The calls of a new account of the shop."""
    return Calls(shop.server.channel, shop.server.sign_up())
