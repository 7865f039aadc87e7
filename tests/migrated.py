"""Databases at the present schema for tests: migrated once a process, and copied from then on."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from oanim_server.database.engine import Database
from oanim_server.database.migrate import migrate

if TYPE_CHECKING:
    from tests.postgresql import Cluster


def sqlite(path: Path) -> Path:
    """Write a ledger where nothing has happened yet; `path` again."""
    path.write_bytes(_empty_sqlite())
    return path


def postgresql(cluster: Cluster) -> str:
    """Make a database of the cluster's where nothing has happened yet; its url."""
    return cluster.create_database(_empty_postgresql(cluster))


@cache
def _empty_sqlite() -> bytes:
    with tempfile.TemporaryDirectory(prefix="oanim-") as folder:
        path = Path(folder, "ledger.db")
        _migrate(Database.open_sqlite(path))
        return path.read_bytes()


@cache
def _empty_postgresql(cluster: Cluster) -> str:
    url = cluster.create_database()
    # Nobody may be connected to what is copied.
    _migrate(Database.open_postgresql(url, unsafe=True))
    return url


def _migrate(database: Database) -> None:
    try:
        migrate(database)
    finally:
        database.close()
