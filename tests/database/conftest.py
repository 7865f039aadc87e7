"""The databases of the ledger's tests, and connections that say what they are sent."""

from __future__ import annotations

from tests.ledger.conftest import (
    ledger,
    open_database,
    postgresql_url,
    sqlite_ledger,
    sqlite_path,
)

__all__ = [
    "ledger",
    "open_database",
    "postgresql_url",
    "sqlite_ledger",
    "sqlite_path",
]
