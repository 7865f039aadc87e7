"""A copy of the embedded database while it is used: one snapshot, whole or not there, its owner's alone."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from oanim_server.database.engine import DatabaseError

if TYPE_CHECKING:
    from pathlib import Path


def backup(source: Path, target: Path) -> None:
    """Copy the database at `source` to a new file.

    :raises DatabaseError: when there is nothing to copy, or `target` is there already.
    """
    if not source.is_file():
        raise DatabaseError(f"there is no database at {source}")
    if target.exists():
        raise DatabaseError(f"{target} is there already: name a new file")
    written = target.with_name(f"{target.name}.part")
    try:
        written.unlink(missing_ok=True)
        # The database lies in a folder that only its owner can open; the copy may not.
        os.close(os.open(written, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with (
            closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True)) as reading,
            closing(sqlite3.connect(written)) as writing,
        ):
            # All pages in one step: one read transaction, and the writer is not waited for.
            reading.backup(writing, pages=-1)
            writing.execute("PRAGMA journal_mode = DELETE").fetchall()
        _sync(written)
        written.replace(target)
        _sync(target.parent)
    except OSError as error:
        raise DatabaseError(f"{target} cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            written.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
