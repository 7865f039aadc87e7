"""Shops on each database, which the tests of this folder share, each with accounts of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.selling import RunningShop, selling_on
from tests.server import Calls

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningShop]:
    cluster = partial(request.getfixturevalue, "postgresql_cluster")
    with selling_on(request.param, cluster, tmp_path_factory.mktemp("data")) as started:
        yield started


@pytest.fixture
def calls(shop: RunningShop) -> Calls:
    """A new account's calls."""
    return Calls(shop.server.channel, shop.server.sign_up())
