"""Bringing a database to the present schema, by alembic, inside one transaction of the writer's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text

from oanim_server.database.engine import DatabaseError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from oanim_server.database.engine import Database

MIGRATIONS = Path(__file__).with_name("migrations")
# Where alembic keeps which migration was the last.
REVISION = "alembic_version"


def head() -> str:
    """The present schema's revision: each migration is a file whose name begins with its number."""
    return max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def is_current(database: Database) -> bool:
    """Whether nothing is missing."""
    return database.read_now(_revision) == head()


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(REVISION):
        return None
    revision: str | None = connection.execute(text(f"SELECT version_num FROM {REVISION}")).scalar()
    return revision


def migrate(database: Database, revision: str = "head") -> None:
    """Run what is missing of the migrations, up to a revision.

    Two servers that start together: one waits for the other.
    """
    if revision == "head" and is_current(database):
        return
    # A tenth of a server's start, and most starts have nothing to migrate.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
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
