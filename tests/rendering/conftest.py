"""Renders on both databases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.ledger.conftest import (  # noqa: F401 - fixtures
    open_database,
    postgresql_url,
    sqlite_path,
)
from tests.rendering.house import House

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from oanim_server.database.engine import Database


@pytest.fixture
def house(
    open_database: Callable[[], Database],  # noqa: F811 - the fixture of that name
    tmp_path: Path,
) -> Iterator[House]:
    """A server's renders, once on each database."""
    with House(open_database(), tmp_path / "renders") as one:
        yield one
