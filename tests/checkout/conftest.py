"""A sandbox of Stripe for each test, and a server's checkouts on both databases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import stripe

from oanim_server.checkout import reconciling
from oanim_server.database.engine import Database
from oanim_server.sandbox import StripeSandbox
from tests.checkout.house import House, Shop, Till
from tests.ledger.conftest import (  # noqa: F401 - fixtures
    open_database,
    postgresql_url,
    proxy,
    sqlite_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class OpenHouse(Protocol):
    """Opens a house of one server with these options of `Shop`; it is closed after the test."""

    def __call__(self, **options: Any) -> House: ...


@pytest.fixture(scope="session")
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One of the authorities that Stripe's SDK trusts: to read them all takes longer than most tests."""
    end = "-----END CERTIFICATE-----\n"
    path = tmp_path_factory.mktemp("authorities") / "one.pem"
    path.write_text(Path(stripe.ca_bundle_path).read_text("utf-8").partition(end)[0] + end)
    return str(path)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, one_authority: str) -> None:
    """Nobody waits long: the SDK between two tries, and the poller for a purchase to be old enough."""
    monkeypatch.setattr(stripe, "ca_bundle_path", one_authority)
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0.02)
    monkeypatch.setattr(stripe.HTTPClient, "MAX_DELAY", 0.1)
    monkeypatch.setattr(reconciling, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(reconciling, "WATCHED_POLL_SECONDS", 0.05)


@pytest.fixture
def till() -> Iterator[Till]:
    """A Stripe where nothing has happened yet."""
    with StripeSandbox() as sandbox:
        one = Till(sandbox.url)
        yield one
        one.close()


@pytest.fixture
def open_house(
    open_database: Callable[[], Database],  # noqa: F811 - the fixture of that name
    till: Till,
) -> Iterator[OpenHouse]:
    """Opens houses, once on each database."""
    opened: list[House] = []

    def open_one(*, url: str | None = till.url, **options: Any) -> House:
        opened.append(House(till, Shop(open_database(), url, **options)))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def replicas(postgresql_url: str, till: Till) -> Iterator[House]:  # noqa: F811 - the fixture of that name
    """Two servers on one PostgreSQL; both are told everything."""
    shops = [Shop(Database.open_postgresql(postgresql_url, unsafe=True), till.url) for _ in range(2)]
    one = House(till, *shops)
    yield one
    one.close()


@pytest.fixture
def house(open_house: OpenHouse) -> House:
    """One server that sells for ever lasting credits, without tax."""
    return open_house()
