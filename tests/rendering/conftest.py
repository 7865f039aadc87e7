"""Renders on both databases."""

from __future__ import annotations

from tests.ledger.conftest import (  # noqa: F401 - fixtures
    open_database,
    postgresql_template,
    postgresql_url,
    sqlite_path,
    sqlite_template,
)
