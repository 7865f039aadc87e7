"""Writes files whole or not at all.

A file appears under its name by a rename, when its last byte is on the disk: what breaks off before leaves
what was there untouched.
"""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from oanim.cli.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write that takes its name when the block ends well, and is gone when it does not."""
    with placed(path) as unfinished, unfinished.open("xb") as file:
        yield file


@contextmanager
def placed(path: Path) -> Iterator[Path]:
    """Name a file for somebody to write, whose ending is the same; it takes its name as of `whole`."""
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_what_is_no_file(path)
    unfinished = path.with_name(f".{path.stem[:100]}.{secrets.token_hex(8)}.part{path.suffix[:100].lower()}")
    try:
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def refuse_what_is_no_file(path: Path) -> None:
    """Refuse to write over anything but a file."""
    # A rename over a device or a pipe would put a file in its place.
    if path.exists() and not path.is_file():
        raise Failure(f"{path} is not a file; choose another --out.")


def prepare_folder(folder: Path) -> None:
    """Make a folder, and find out whether it can be written to, before anything is spent."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Failure(f"{folder} cannot be written to.")
