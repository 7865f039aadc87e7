"""When SQLite's write-ahead log is moved into the database: after answers, not before them.

SQLite does that at the end of a COMMIT, whose callers then wait for it. Here the writer does it when their
answers are on the way, while the event loop has the interpreter for itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

# How long it gets before it is moved, and when SQLite moves it by itself, at the end of a COMMIT.
PAGES = 2_000
MOST_PAGES = 2 * PAGES
# So few pages a changed row are the least that is reckoned with: rows may be larger soon.
_LEAST = 0.25


class Wal:
    """Says when it is long. SQLite tells its length at a checkpoint only; between two, changed rows do."""

    def __init__(self) -> None:
        self._rows = 0
        self._pages_a_row = 1.0

    def checkpoint(self, writer: sqlite3.Connection, *, idle: bool) -> None:
        """Move it where it is long, or nothing else is to be done; readers see what they saw."""
        rows = writer.total_changes
        # Of a new connection they begin anew.
        changed = rows - self._rows if rows >= self._rows else rows
        if not idle and changed * self._pages_a_row < PAGES:
            return
        _, pages, _ = writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self._rows = rows
        if changed:
            # No less than half of what it was: it is shorter than that, too, when SQLite moved it meanwhile.
            self._pages_a_row = max(pages / changed, self._pages_a_row / 2, _LEAST)
