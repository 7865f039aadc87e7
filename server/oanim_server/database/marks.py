"""What a database was used for: one that `dev` has written into holds made-up money and is never served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from oanim_server.database.tables import accounts, marks

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from oanim_server.database.engine import Database

_USED_BY = "used_by"
_DEV = "dev"


def used_by_dev(database: Database) -> bool:
    """Whether `dev` has used it."""
    return database.read_now(_used_by_dev)


def mark_for_dev(database: Database) -> bool:
    """Mark it as `dev`'s, while no committer runs; False when it has accounts that are not `dev`'s."""
    with database.writing() as connection:
        if _used_by_dev(connection):
            return True
        if connection.execute(select(accounts.c.account_id).limit(1)).one_or_none() is not None:
            return False
        connection.execute(insert(marks).values(name=_USED_BY, value=_DEV))
        return True


def _used_by_dev(connection: Connection) -> bool:
    found = connection.execute(select(marks.c.value).where(marks.c.name == _USED_BY)).scalar_one_or_none()
    return found == _DEV
