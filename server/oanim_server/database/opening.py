"""Which database a server has: the file in its data folder, or the PostgreSQL that it was told to use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oanim_server.database.engine import Database, DatabaseError
from oanim_server.database.migrate import is_current

if TYPE_CHECKING:
    from pathlib import Path


def open_database(file: Path, url: str | None, *, unsafe: bool, writing: bool = True) -> Database:
    """Open it. Without `writing` it must be there, and is only read: a server may hold it meanwhile.

    :raises DatabaseError: when it cannot be used.
    """
    if url is not None:
        return Database.open_postgresql(url, unsafe=unsafe)
    if not writing:
        if not file.is_file():
            raise DatabaseError(f"there is no database at {file}")
        return Database.open_sqlite(file, lock=False)
    try:
        # The folder holds the database and the operator's socket: it is its owner's alone.
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Database.open_sqlite(file)
    except OSError as error:
        raise DatabaseError(f"{file.parent} cannot be used: {error.strerror}") from None


def require_current(database: Database) -> None:
    """See that the schema is the present one.

    :raises DatabaseError: naming the command that brings it there.
    """
    if not is_current(database):
        raise DatabaseError("the database is not at the present schema: run `oanim-server migrate`")
