"""Bringing a database to the present schema, by alembic, inside one transaction of the writer's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from oanim_server.database.engine import DatabaseError

if TYPE_CHECKING:
    from oanim_server.database.engine import Database

MIGRATIONS = Path(__file__).with_name("migrations")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def migrate(database: Database, revision: str = "head") -> None:
    """Run what is missing of the migrations, up to a revision.

    Two servers that start together: one waits for the other.
    """
    config = _config()
    with database.writing() as connection:
        if database.dialect == "postgresql":
            # The lock that makes the second server wait: DDL of two migrations must not meet.
            connection.exec_driver_sql("SET LOCAL lock_timeout = '60s'")
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7246035231)")
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, revision)
        except CommandError:
            raise DatabaseError(
                "this database was brought to its schema by a newer oanim-server: start that one"
            ) from None


def is_current(database: Database) -> bool:
    """Whether nothing is missing."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    return (
        database.read_now(lambda connection: MigrationContext.configure(connection).get_current_revision())
        == head
    )
