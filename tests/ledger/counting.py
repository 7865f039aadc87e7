"""What connections send to their database, whoever sends it: the hot statements do not pass SQLAlchemy."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import Engine, event

if TYPE_CHECKING:
    from collections.abc import Iterator

# The ends of transactions, settings, and the question whether a pooled connection still lives.
_BESIDES = ("BEGIN", "COMMIT", "ROLLBACK", "PRAGMA", "SHOW", "SET", ";")


@contextmanager
def statements_of_new_connections() -> Iterator[list[str]]:
    """The statements of connections that are made inside the block; `executemany` is one on PostgreSQL."""
    sent: list[str] = []

    def note(statement: str) -> None:
        if statement.lstrip().split(" ", 1)[0].upper() not in _BESIDES:
            sent.append(statement)

    class Counting(psycopg.Cursor[Any]):
        def execute(self, query: Any, *args: Any, **options: Any) -> Any:
            note(str(query))
            return super().execute(query, *args, **options)

    def connected(connection: Any, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.set_trace_callback(note)
        else:
            connection.cursor_factory = Counting

    event.listen(Engine, "connect", connected)
    try:
        yield sent
    finally:
        event.remove(Engine, "connect", connected)
